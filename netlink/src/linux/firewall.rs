//! What nftables does to bridged frames, read over netlink: no `nft` program is needed.

use super::nl::{Many, Msg, NLM_F_DUMP, NLM_F_REQUEST, Out, ask, attrs};
use crate::op::OpError;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};

const SUBSYS: u16 = 10 << 8;

/// Everything of one kind in every family.
fn dump(kind: u16, each: impl FnMut(&Msg<'_>)) -> Result<(), OpError> {
    let open = || -> std::io::Result<Socket> {
        let mut s = Socket::new(NETLINK_NETFILTER)?;
        s.bind_auto()?;
        s.connect(&SocketAddr::new(0, 0))?;
        Ok(s)
    };
    let socket = open().map_err(|e| OpError::from_errno(e.raw_os_error().unwrap_or(libc::EIO)))?;
    let mut out = Out::default();
    out.begin(SUBSYS | kind, NLM_F_REQUEST | NLM_F_DUMP, 1);
    out.bytes(&[0; 4]);
    out.end();
    ask(&socket, &out.v, 1, &mut Many::new(4, 32 << 10), each).map(drop)
}

/// The family in the header of a message, by its name; `None` for those that neither forward nor bridge.
fn family(m: &Msg<'_>) -> Option<&'static str> {
    Some(match m.body.first()? {
        1 => "inet",
        2 => "ip",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => return None,
    })
}

fn find<'a>(m: &Msg<'a>, want: u16) -> Option<&'a [u8]> {
    attrs(m.body.get(4..)?).find(|(k, _)| *k == want).map(|(_, b)| b)
}

fn text(m: &Msg<'_>, want: u16) -> String {
    let b = find(m, want).unwrap_or(&[]);
    String::from_utf8_lossy(b.strip_suffix(&[0]).unwrap_or(b)).into_owned()
}

/// Base chains on the forward hook with policy drop, as `family table chain`.
pub(super) fn forward_drop_chains() -> Result<Vec<String>, OpError> {
    const GETCHAIN: u16 = 4;
    const CHAIN_TABLE: u16 = 1;
    const CHAIN_NAME: u16 = 3;
    const CHAIN_HOOK: u16 = 4;
    const CHAIN_POLICY: u16 = 5;
    const HOOK_NUMBER: u16 = 1;
    const NF_INET_FORWARD: [u8; 4] = [0, 0, 0, 2];
    const NF_DROP: [u8; 4] = [0; 4];
    let mut found = Vec::new();
    dump(GETCHAIN, |m| {
        let Some(family @ ("inet" | "ip" | "ip6")) = family(m) else { return };
        let hook = find(m, CHAIN_HOOK).and_then(|h| attrs(h).find(|(k, _)| *k == HOOK_NUMBER));
        if hook.map(|(_, n)| n) == Some(&NF_INET_FORWARD) && find(m, CHAIN_POLICY) == Some(&NF_DROP) {
            found.push(format!("{family} {} {}", text(m, CHAIN_TABLE), text(m, CHAIN_NAME)));
        }
    })?;
    Ok(found)
}

/// Chains that compare something with the EtherType of ARP or RARP, as `family table chain`. Whether such a rule
/// drops depends on what else it says; that it is there is worth knowing (PIT-07).
pub(super) fn arp_filters() -> Result<Vec<String>, OpError> {
    const GETRULE: u16 = 7;
    const RULE_TABLE: u16 = 1;
    const RULE_CHAIN: u16 = 2;
    const RULE_EXPRESSIONS: u16 = 4;
    let mut found = Vec::new();
    dump(GETRULE, |m| {
        let Some(family @ ("netdev" | "bridge")) = family(m) else { return };
        let expressions = find(m, RULE_EXPRESSIONS).unwrap_or(&[]);
        if attrs(expressions).any(|(_, e)| compares_with_arp(e)) {
            let name = format!("{family} {} {}", text(m, RULE_TABLE), text(m, RULE_CHAIN));
            if !found.contains(&name) {
                found.push(name);
            }
        }
    })?;
    Ok(found)
}

/// One expression of a rule: `cmp` with `0x0806` or `0x8035`.
fn compares_with_arp(expression: &[u8]) -> bool {
    const NAME: u16 = 1;
    const DATA: u16 = 2;
    const CMP_DATA: u16 = 3;
    const DATA_VALUE: u16 = 1;
    let get = |b, want| attrs(b).find(|(k, _)| *k == want).map_or(&[][..], |(_, v)| v);
    if get(expression, NAME) != b"cmp\0" {
        return false;
    }
    let value = get(get(get(expression, DATA), CMP_DATA), DATA_VALUE);
    matches!(value, [0x08, 0x06] | [0x80, 0x35])
}
