//! A domain's XML, as far as it is about interfaces (libvirt, "Domain XML format").

use crate::hypervisor::nics::MAX_NICS;
use evpn::types::Mac;

/// Largest domain description that is taken in, octets.
pub const MAX_XML: usize = 1 << 20;

/// A domain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Domain {
    /// Its name.
    pub name: String,
    /// Interfaces that are ports of a bridge.
    pub interfaces: Vec<Interface>,
}

/// An interface of a domain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Interface {
    /// The guest's MAC.
    pub mac: Mac,
    /// The device on the host; libvirt gives it a name when the guest is started.
    pub port: Option<String>,
    /// The bridge that is asked for.
    pub bridge: Option<String>,
}

/// What is wrong with a domain's description.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DomainError {
    /// Not well-formed, or with a document type, which libvirt never writes.
    #[error("the domain's XML cannot be read: {0}")]
    Xml(String),
    /// Something else.
    #[error("this is no libvirt domain: {0}")]
    NoDomain(&'static str),
    /// Too much of it.
    #[error("the domain's XML has more than 1 MiB")]
    TooLong,
}

impl Domain {
    /// Reads a description. Interfaces without a port on a bridge (user mode, direct, passed through, vhost-user)
    /// and those with impossible MACs are left out.
    ///
    /// # Errors
    /// It is no domain.
    pub fn parse(xml: &str) -> Result<Self, DomainError> {
        if xml.len() > MAX_XML {
            return Err(DomainError::TooLong);
        }
        // Without document types there are no entities to expand without end.
        let options =
            roxmltree::ParsingOptions { allow_dtd: false, nodes_limit: 100_000, ..Default::default() };
        let document = roxmltree::Document::parse_with_options(xml, options)
            .map_err(|e| DomainError::Xml(e.to_string()))?;
        let root = document.root_element();
        if !root.has_tag_name("domain") {
            return Err(DomainError::NoDomain("its root is not <domain>"));
        }
        let attribute = |of: roxmltree::Node<'_, '_>, name: &str, key: &str| {
            of.children().find(|c| c.has_tag_name(name)).and_then(|c| c.attribute(key)).map(str::to_owned)
        };
        let name = root.children().find(|c| c.has_tag_name("name")).and_then(|c| c.text());
        let name = name.map(|n| n.trim().to_owned()).filter(|n| good_name(n));
        let name = name.ok_or(DomainError::NoDomain("it has no usable name"))?;
        let devices = root.children().filter(|c| c.has_tag_name("devices"));
        let all = devices.flat_map(|d| d.children()).filter(|c| c.has_tag_name("interface"));
        let of_a_bridge = |i: &roxmltree::Node<'_, '_>| {
            i.attribute("type").is_some_and(|t| ["bridge", "network", "ethernet"].contains(&t))
        };
        let interfaces = all
            .filter(of_a_bridge)
            .filter_map(|i| {
                let mac = attribute(i, "mac", "address")?.parse::<Mac>().ok().filter(|m| m.is_host())?;
                let port = attribute(i, "target", "dev").filter(|d| good_device(d));
                Some(Interface { mac, port, bridge: attribute(i, "source", "bridge") })
            })
            .take(MAX_NICS)
            .collect();
        Ok(Self { name, interfaces })
    }
}

/// Whether a domain's name can be one: libvirt forbids `/`, and nobody needs control characters.
pub fn good_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 256 && !name.contains('/') && !name.chars().any(char::is_control)
}

fn good_device(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 15
        && !name.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = r"<domain type='kvm' id='3' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>web &amp; db</name>
  <devices>
    <interface type='bridge'>
      <mac address='52:54:00:aa:00:01'/><source bridge='br100'/><target dev='vnet0'/>
      <model type='virtio'/>
    </interface>
    <interface type='network'><mac address='52:54:00:aa:00:02'/><source network='n' bridge='br101'/></interface>
    <interface type='direct'><mac address='52:54:00:aa:00:03'/><target dev='macvtap0'/></interface>
    <interface type='bridge'><mac address='ff:ff:ff:ff:ff:ff'/><target dev='vnet3'/></interface>
    <interface type='ethernet'><mac address='52:54:00:aa:00:04'/><target dev='a name too long for it'/></interface>
  </devices>
</domain>";

    #[test]
    fn interfaces_on_bridges_are_found_with_their_devices() {
        let d = Domain::parse(XML).expect("a domain");
        assert_eq!(d.name, "web & db");
        let got: Vec<_> = d
            .interfaces
            .iter()
            .map(|i| (i.mac.to_string(), i.port.as_deref(), i.bridge.as_deref()))
            .collect();
        assert_eq!(
            got,
            [
                ("52:54:00:aa:00:01".to_owned(), Some("vnet0"), Some("br100")),
                ("52:54:00:aa:00:02".to_owned(), None, Some("br101")),
                ("52:54:00:aa:00:04".to_owned(), None, None),
            ]
        );
    }

    #[test]
    fn what_is_no_domain_is_refused_and_named() {
        let bomb = "<!DOCTYPE d [<!ENTITY a 'aaaa'>]><domain><name>&a;</name></domain>";
        for (xml, part) in [
            ("", "cannot be read"),
            ("<domain><name>x</name>", "cannot be read"),
            (bomb, "cannot be read"),
            ("<network><name>x</name></network>", "root is not <domain>"),
            ("<domain/>", "no usable name"),
            ("<domain><name>a/b</name></domain>", "no usable name"),
        ] {
            let why = Domain::parse(xml).expect_err(xml).to_string();
            assert!(why.contains(part), "{xml}: {why}");
        }
        assert_eq!(Domain::parse(&" ".repeat(MAX_XML + 1)), Err(DomainError::TooLong));
        let deep = format!("{}{}", "<a>".repeat(20_000), "</a>".repeat(20_000));
        assert!(Domain::parse(&deep).is_err());
    }
}
