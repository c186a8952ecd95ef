//! Chains of probes of bindings that came with their MAC: one for each address. Whoever begins another one (the MAC has
//! come again, its guest was heard) takes the place of the first, or its probes would count together and the address
//! were given up before its host has had the time to answer.

use crate::types::{Time, Vni};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Chains {
    due: BTreeSet<(Time, Vni, IpAddr)>,
    next: BTreeMap<(Vni, IpAddr), Time>,
}

impl Chains {
    /// The next probe of an address, instead of any that was to come.
    pub(super) fn put(&mut self, at: Time, vni: Vni, ip: IpAddr) {
        if let Some(old) = self.next.insert((vni, ip), at) {
            self.due.remove(&(old, vni, ip));
        }
        self.due.insert((at, vni, ip));
    }

    /// When the next probe is due.
    pub(super) fn first(&self) -> Option<Time> {
        self.due.first().map(|(t, ..)| *t)
    }

    /// The next one, taken out.
    pub(super) fn take(&mut self) -> Option<(Vni, IpAddr)> {
        let (_, vni, ip) = self.due.pop_first()?;
        self.next.remove(&(vni, ip));
        Some((vni, ip))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_chain() {
        let (vni, a, b) =
            (Vni::new(1).expect("valid"), IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let mut c = Chains::default();
        c.put(Time(5), vni, a);
        c.put(Time(7), vni, b);
        c.put(Time(9), vni, a);
        assert_eq!((c.first(), c.take()), (Some(Time(7)), Some((vni, b))));
        assert_eq!((c.first(), c.take()), (Some(Time(9)), Some((vni, a))));
        assert_eq!((c.first(), c.take()), (None, None));
    }
}
