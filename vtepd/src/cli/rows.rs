//! How each table looks.

use super::moves;
use super::out::{Color, Look};
use super::table::{Cell, Column, cell, colored, flexible, left, list, maybe, render as table, right, span};
use evpn::bfd::State;
use evpn::node::DuplicateAction;
use evpn::node::view::{
    AnsweredBy, DuplicateView, HostView, KernelView, MacView, NeighborView, RouteView, Rows, StatusView,
    VniView,
};

/// A table as text.
pub(super) fn render(rows: &Rows, look: Look) -> String {
    match rows {
        Rows::Status(r) => r.iter().map(|s| status(s, look)).collect(),
        Rows::Neighbors(r) => print(&NEIGHBORS, r, neighbor, look, "no neighbours are configured"),
        Rows::Vnis(r) => print(&VNIS, r, vni, look, "no VNIs"),
        Rows::Macs(r) => print(&MACS, r, mac, look, "no MAC addresses"),
        Rows::Hosts(r) => print(&HOSTS, r, host, look, "no IP addresses"),
        Rows::Routes(r) => print(&ROUTES, r, route, look, "no routes"),
        Rows::Moves(r) => print(&moves::COLUMNS, r, moves::row, look, "no moves"),
        Rows::Duplicates(r) => print(&DUPLICATES, r, duplicate, look, "no duplicates"),
        Rows::Kernel(r) => print(&KERNEL, r, kernel, look, "no rows are wanted"),
    }
}

pub(super) fn print<T>(
    columns: &[Column],
    rows: &[T],
    row: fn(&T) -> Vec<Cell>,
    look: Look,
    none: &str,
) -> String {
    if rows.is_empty() {
        return format!("{none}\n");
    }
    let cells: Vec<_> = rows.iter().map(row).collect();
    table(columns, &cells, look)
}

fn status(s: &StatusView, look: Look) -> String {
    let converged = if s.converged { colored("yes", Color::Green) } else { colored("no", Color::Yellow) };
    let sessions = format!("{} of {} established", s.established, s.neighbors);
    let mut rows = vec![
        vec![cell("program"), cell(&s.program)],
        vec![cell("VTEP address"), cell(s.vtep)],
        vec![cell("AS"), cell(s.asn)],
        vec![cell("router id"), cell(s.router_id)],
        vec![cell("uptime"), cell(span(s.uptime))],
        vec![cell("neighbors"), cell(sessions)],
        vec![cell("converged"), converged],
        vec![cell("local MACs"), cell(s.local_macs)],
        vec![cell("remote MACs"), cell(s.remote_macs)],
    ];
    rows.extend(s.counters.iter().map(|(name, n)| vec![cell(name), cell(n)]));
    let body = table(&[left(""), flexible("")], &rows, look);
    // The empty heads make an empty first line.
    body.split_once('\n').map_or(String::new(), |(_, rest)| rest.to_owned())
}

const NEIGHBORS: [Column; 10] = [
    left("NEIGHBOR"),
    right("AS"),
    left("STATE"),
    right("FOR"),
    left("EOR"),
    right("IN"),
    right("OUT"),
    right("UPD-IN"),
    right("UPD-OUT"),
    flexible("NOTE"),
];

fn neighbor(n: &NeighborView) -> Vec<Cell> {
    let up = n.state == "Established";
    let color = if up { Color::Green } else { Color::Red };
    let held = n.held_down.then(|| "held down".to_owned());
    let error = held.or_else(|| n.last_error.clone()).filter(|_| !up);
    let bfd = n.bfd.as_ref().filter(|b| b.state != State::Up).map(|b| format!("BFD {}", b.state));
    let eor = if n.end_of_rib { "yes" } else { "no" };
    vec![
        cell(n.address),
        maybe(n.asn),
        colored(&n.state, color),
        cell(span(n.since)),
        cell(eor),
        if n.routes_stale > 0 {
            cell(format!("{} ({} stale)", n.routes_in, n.routes_stale))
        } else {
            cell(n.routes_in)
        },
        cell(n.routes_out),
        cell(n.updates_in),
        cell(n.updates_out),
        maybe(error.or(bfd).or_else(|| note(n))),
    ]
}

/// What an operator wrote, and where a neighbour comes from that nobody wrote.
fn note(n: &NeighborView) -> Option<String> {
    let dynamic = n.range.as_ref().map(|r| format!("dynamic, of {r}"));
    match (dynamic, &n.description) {
        (Some(d), Some(text)) => Some(format!("{d}: {text}")),
        (Some(d), None) => Some(d),
        (None, text) => text.clone(),
    }
}

const VNIS: [Column; 11] = [
    right("VNI"),
    left("BRIDGE"),
    left("VXLAN"),
    left("READY"),
    right("LOCAL"),
    right("REMOTE"),
    right("HOSTS"),
    right("MTU"),
    flexible("PORTS"),
    flexible("VTEPS"),
    flexible("PROBLEMS"),
];

fn vni(v: &VniView) -> Vec<Cell> {
    let ready = if v.ready { colored("yes", Color::Green) } else { colored("no", Color::Red) };
    let problems = v.problems.join("; ");
    vec![
        cell(v.vni),
        cell(&v.bridge),
        cell(&v.vxlan),
        ready,
        cell(v.local_macs),
        cell(v.remote_macs),
        cell(v.hosts),
        maybe(v.mtu),
        list(&v.ports),
        list(&v.vteps),
        colored(problems, Color::Yellow),
    ]
}

const MACS: [Column; 8] = [
    right("VNI"),
    left("MAC"),
    left("PLACE"),
    right("SEQ"),
    left("FLAGS"),
    right("MOVES"),
    right("FOR"),
    flexible("IPS"),
];

fn mac(m: &MacView) -> Vec<Cell> {
    let flags: Vec<&str> =
        [m.sticky.then_some("sticky"), m.stale.then_some("stale"), m.duplicate.then_some("duplicate")]
            .into_iter()
            .flatten()
            .collect();
    vec![
        cell(m.vni),
        cell(m.mac),
        cell(&m.place),
        cell(m.seq),
        list(&flags),
        cell(m.moves),
        cell(span(m.since)),
        list(&m.ips),
    ]
}

const HOSTS: [Column; 10] = [
    right("VNI"),
    left("IP"),
    left("MAC"),
    left("PLACE"),
    left("KNOWN-BY"),
    right("AGE"),
    right("CONFIRMED"),
    left("ANSWERED-BY"),
    left("FLAGS"),
    flexible("WHY"),
];

fn host(h: &HostView) -> Vec<Cell> {
    let flags = [(h.router, "router"), (h.immutable, "immutable"), (h.duplicate, "duplicate")];
    let flags: Vec<&str> = flags.into_iter().filter_map(|(on, name)| on.then_some(name)).collect();
    let by = match h.answered_by {
        AnsweredBy::Nobody => colored(h.answered_by, Color::Red),
        AnsweredBy::Kernel | AnsweredBy::Owner => cell(h.answered_by),
    };
    vec![
        cell(h.vni),
        cell(h.ip),
        cell(h.mac),
        cell(&h.place),
        cell(&h.origin),
        cell(span(h.age)),
        maybe(h.confirmed.map(|t| format!("{} ago", span(t)))),
        by,
        list(&flags),
        cell(&h.answered_why),
    ]
}

const ROUTES: [Column; 9] = [
    left("BEST"),
    flexible("ROUTE"),
    left("RD"),
    left("FROM"),
    left("NEXT-HOP"),
    right("SEQ"),
    left("VNI"),
    flexible("IMPORTED"),
    flexible("NOTE"),
];

fn route(r: &RouteView) -> Vec<Cell> {
    let best = if r.best { colored("*", Color::Green) } else { cell("") };
    let from = r.from.map_or_else(|| "local".to_owned(), |a| a.to_string());
    vec![
        best,
        cell(&r.route),
        cell(&r.rd),
        cell(from),
        maybe(r.next_hop),
        maybe(r.seq),
        maybe(r.vni),
        list(&r.imported),
        maybe(r.why_not.clone()),
    ]
}

const DUPLICATES: [Column; 8] = [
    right("VNI"),
    left("ADDRESS"),
    left("HOLDER"),
    left("PORT"),
    left("STATE"),
    left("ACTION"),
    right("FOR"),
    flexible("OWNERS"),
];

/// `PORT` is ours, with the host behind it that does not have the address.
fn duplicate(d: &DuplicateView) -> Vec<Cell> {
    let action = match d.action {
        DuplicateAction::Report => "report",
        DuplicateAction::Freeze => "freeze",
        DuplicateAction::Block => "block",
    };
    vec![
        cell(d.vni),
        cell(d.address),
        cell(&d.holder),
        cell(&d.port),
        colored(&d.state, Color::Yellow),
        cell(action),
        cell(span(d.since)),
        list(&d.owners),
    ]
}

pub(super) const KERNEL: [Column; 6] =
    [left("DEVICE"), left("KIND"), left("KEY"), flexible("WANTED"), flexible("IN-KERNEL"), left("STATE")];

pub(super) fn kernel(k: &KernelView) -> Vec<Cell> {
    let mut state = match &k.has {
        _ if !k.wanted => cell("-"),
        None => colored("missing", Color::Red),
        Some(has) if *has == k.want => colored("ok", Color::Green),
        Some(_) => colored("differs", Color::Yellow),
    };
    if k.stale {
        state = colored("stale", Color::Yellow);
    }
    vec![cell(&k.device), cell(&k.kind), cell(&k.key), cell(&k.want), maybe(k.has.clone()), state]
}

#[cfg(test)]
mod tests {
    use super::*;
    use evpn::node::view::Place;
    use evpn::types::{Mac, Seq, Span, Vni};
    use std::net::IpAddr;

    const PLAIN: Look = Look { color: false, width: Some(100) };

    #[test]
    fn macs_line_up() {
        let row = |n: u8, place: Place, ips: &[&str]| MacView {
            vni: Vni::new(100).expect("valid"),
            mac: Mac([2, 0, 0, 0, 0, n]),
            place,
            seq: Seq(u32::from(n)),
            sticky: n == 2,
            stale: false,
            duplicate: n == 2,
            ips: ips.iter().map(|i| i.parse().expect("address")).collect(),
            moves: 0,
            since: Span::secs(75),
        };
        let rows = Rows::Macs(vec![
            row(1, Place::Port("p1".into()), &["192.0.2.1", "2001:db8::1"]),
            row(2, Place::Vtep("10.255.0.2".parse().expect("address")), &[]),
        ]);
        assert_eq!(
            render(&rows, PLAIN).lines().map(str::trim_end).collect::<Vec<_>>(),
            [
                "VNI  MAC                PLACE       SEQ  FLAGS             MOVES     FOR  IPS",
                "100  02:00:00:00:00:01  p1            1  -                     0  1m 15s  192.0.2.1 2001:db8::1",
                "100  02:00:00:00:00:02  10.255.0.2    2  sticky duplicate      0  1m 15s  -",
            ]
        );
    }

    #[test]
    fn hosts_say_who_answers_for_them_and_why() {
        let row = |n: u8, place, origin: &str, answered_by, why: &str| HostView {
            vni: Vni::new(100).expect("valid"),
            ip: IpAddr::from([192, 0, 2, n]),
            mac: Mac([2, 0, 0, 0, 0, n]),
            place,
            origin: origin.into(),
            age: Span::secs(75),
            confirmed: (n < 3).then_some(Span::secs(5)),
            answered_by,
            answered_why: why.into(),
            router: n == 1,
            immutable: n == 2,
            duplicate: false,
            bridge: "br100".into(),
        };
        let port = || Place::Port("p1".into());
        let rows = Rows::Hosts(vec![
            row(1, port(), "answer", AnsweredBy::Owner, "it is there"),
            row(2, Place::Vtep(IpAddr::from([10, 0, 0, 2])), "bgp", AnsweredBy::Kernel, "a row"),
            row(3, port(), "adopted", AnsweredBy::Nobody, "port p1 has no carrier"),
        ]);
        let text = render(&rows, Look { color: false, width: None });
        assert_eq!(
            text.lines().map(str::trim_end).collect::<Vec<_>>(),
            [
                "VNI  IP         MAC                PLACE     KNOWN-BY     AGE  CONFIRMED  ANSWERED-BY  FLAGS      WHY",
                "100  192.0.2.1  02:00:00:00:00:01  p1        answer    1m 15s  5.0 s ago  owner        router     it is there",
                "100  192.0.2.2  02:00:00:00:00:02  10.0.0.2  bgp       1m 15s  5.0 s ago  kernel       immutable  a row",
                "100  192.0.2.3  02:00:00:00:00:03  p1        adopted   1m 15s          -  nobody       -          port p1 has no carrier",
            ]
        );
    }

    #[test]
    fn an_empty_table_says_so() {
        assert_eq!(render(&Rows::Moves(vec![]), PLAIN), "no moves\n");
    }

    #[test]
    fn kernel_rows_show_what_is_missing_or_different() {
        let row = |has: Option<&str>| KernelView {
            device: "br100".into(),
            kind: "mac".into(),
            key: "02:00:00:00:00:01".into(),
            want: "10.255.0.2".into(),
            has: has.map(str::to_owned),
            stale: false,
            wanted: true,
        };
        let text = render(&Rows::Kernel(vec![row(Some("10.255.0.2")), row(None), row(Some("p1"))]), PLAIN);
        let states: Vec<&str> = text.lines().skip(1).filter_map(|l| l.split_whitespace().last()).collect();
        assert_eq!(states, ["ok", "missing", "differs"]);
    }
}
