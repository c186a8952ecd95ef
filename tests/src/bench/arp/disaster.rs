//! A VTEP loses its power: no withdrawal, no more packets. Its guest is started elsewhere with a new MAC and checks its address
//! first, as RFC 5227 and RFC 4862 want it: does it keep the address, and when does a Linux host that has cached the old MAC
//! reach it?

use super::Daemon;
use crate::bench::{Report, Samples, Sizes, System, quiet};
use crate::fabric::Fabric;
use crate::need::{Need, met};
use crate::poll::{LATER, eventually, same};
use crate::talkers::{ADDRESSES, Talkers};
use crate::vtepd::Vtepd;
use std::time::Duration;

/// Each takes some ten seconds.
const MOST: usize = 10;
const CAP: Duration = Duration::from_secs(60);

pub(super) fn run(sizes: &Sizes, report: &mut Report) {
    if !met(&[Need::Package { program: "arping", package: "iputils-arping" }]) {
        return;
    }
    let f = Fabric::new(3);
    let mut daemons: Vec<_> = (0..3).map(|i| Some(Daemon::start(&f, i, System::Vtepd))).collect();
    let together = || {
        for v in &f.vteps {
            eventually(LATER, "everybody floods to everybody", || same(v.flood_list(100).len(), 2));
        }
    };
    together();
    let t = Talkers::new(&f);
    for ip in ADDRESSES {
        let family = if ip.is_ipv4() { "IPv4" } else { "IPv6" };
        let (mut took, mut refused) = (Samples::default(), 0.0);
        t.settle(ip, 0);
        for n in 0..sizes.moves.min(MOST) {
            quiet(&f);
            let (from, to) = (n % 2, 1 - n % 2);
            let mut left = None;
            let rescue = t.rescue(ip, to, CAP, || {
                if let Some(Daemon::Vtepd(d)) = daemons[from].take() {
                    left = Some(d.kill());
                }
                f.spine.sh(&format!("ip link set u{} down", from + 1));
            });
            took.push(rescue.gap.unwrap_or(CAP.as_nanos() as u64));
            refused += f64::from(u8::from(!rescue.kept));
            // The power is back, and the guest is elsewhere.
            f.spine.sh(&format!("ip link set u{} up", from + 1));
            let dir = left.expect("it ran before");
            let d = Vtepd::start_again(&f.vteps[from].ns, &f.conf(from), dir);
            d.converge();
            daemons[from] = Some(Daemon::Vtepd(Box::new(d)));
            together();
            t.plug(&f, from);
            eventually(LATER, "they talk", || t.settled(ip));
        }
        let us = System::Vtepd;
        report.times(format!("VTEP lost: announcement to first packet, {family}"), Some(us), &took);
        report.number(format!("VTEP lost: addresses refused at the first try, {family}"), us, "", refused);
    }
}
