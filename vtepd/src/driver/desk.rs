//! What becomes of each frame that comes out of a hold port, in the order in which they came and a few at a time (PIT-26).
//! Without descriptors, so that it can be tested: how a frame is sent, the caller says.

use evpn::node::{Held, HoldWord};
use evpn::types::{Mac, Span, Time};
use netlink::shelf::{Shelf, ShelfLimits};
use std::collections::BTreeMap;
use std::io;

/// After its row has gone elsewhere, frames that were on their way to the hold port still come out of it for so long.
const LINGER: Span = Span::millis(100);

/// What is to become of the frames of one MAC. `O`: a way out of a VXLAN device.
#[derive(Debug)]
pub(super) struct Mode<O> {
    pub(super) word: HoldWord,
    pub(super) out: Option<O>,
    held: Held,
    /// When it is forgotten.
    until: Option<Time>,
}

/// The frames of one hold port.
#[derive(Debug)]
pub(super) struct Desk<O> {
    shelf: Shelf,
    macs: BTreeMap<Mac, Mode<O>>,
}

impl<O> Desk<O> {
    pub(super) fn new(limits: ShelfLimits) -> Self {
        Self { shelf: Shelf::new(limits), macs: BTreeMap::new() }
    }

    /// What is to become of a MAC's frames from now on. What waits follows with [`Desk::hand_out`].
    pub(super) fn word(&mut self, mac: Mac, word: HoldWord, out: Option<O>) {
        let mode = Mode { word, out: None, held: Held::default(), until: None };
        let m = self.macs.entry(mac).or_insert(mode);
        (m.word, m.out, m.until) = (word, out, None);
    }

    /// A frame that the bridge has sent to the port.
    pub(super) fn take_in(&mut self, frame: &[u8], send: impl Fn(&Mode<O>, &[u8]) -> io::Result<()>) {
        let Some(mac) = frame.first_chunk::<6>().map(|m| Mac(*m)) else { return };
        // Nothing else is meant for this port: what the bridge itself says to all its ports, for instance.
        let Some(m) = self.macs.get_mut(&mac) else { return };
        if m.word == HoldWord::Keep || self.shelf.has(mac) {
            m.held.dropped += u64::from(!self.shelf.keep(mac, frame));
            return;
        }
        match send(m, frame) {
            Ok(()) => m.held.relayed += 1,
            Err(_) => m.held.dropped += 1,
        }
    }

    /// Sends what waits and is to be sent, at most so many. Returns whether more waits.
    pub(super) fn hand_out(
        &mut self,
        budget: usize,
        now: Time,
        send: impl Fn(&Mode<O>, &[u8]) -> io::Result<()>,
    ) -> bool {
        let mut left = budget;
        for (mac, m) in self.macs.iter_mut().filter(|(_, m)| m.word != HoldWord::Keep) {
            while left > 0
                && let Some(frame) = self.shelf.take(*mac)
            {
                left -= 1;
                match send(m, &frame) {
                    Ok(()) => m.held.kept += 1,
                    Err(_) => m.held.dropped += 1,
                }
            }
            if self.shelf.has(*mac) {
                return true;
            }
            if m.word == HoldWord::Return {
                m.until.get_or_insert(now + LINGER);
            }
        }
        false
    }

    /// MACs whose time is over, and what became of their frames.
    pub(super) fn over(&mut self, now: Time, mut each: impl FnMut(Mac, Held)) {
        self.macs.retain(|mac, m| {
            let over = m.until.is_some_and(|t| t <= now);
            if over {
                each(*mac, m.held);
            }
            !over
        });
    }

    /// When the next one is over.
    pub(super) fn deadline(&self) -> Option<Time> {
        self.macs.values().filter_map(|m| m.until).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evpn::types::IfIndex;
    use std::cell::RefCell;

    const A: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const RELAY: HoldWord = HoldWord::Relay(IfIndex(3));

    fn frame(mac: Mac, n: u8) -> Vec<u8> {
        [&mac.0[..], &[n]].concat()
    }

    fn desk() -> Desk<()> {
        Desk::new(ShelfLimits { frames: 100, octets: 4096, all: 8192 })
    }

    /// What was kept goes before what comes later, although it goes a few at a time.
    #[test]
    fn frames_keep_their_order_while_they_are_handed_out_in_pieces() {
        let sent = RefCell::new(Vec::new());
        let send = |_: &Mode<()>, f: &[u8]| {
            sent.borrow_mut().push(f[6]);
            Ok(())
        };
        let mut d = desk();
        d.word(A, HoldWord::Keep, None);
        (0..50).for_each(|n| d.take_in(&frame(A, n), send));
        assert!(!d.hand_out(64, Time(0), send), "it is to wait");
        d.word(A, RELAY, Some(()));
        for n in 50..60 {
            assert!(d.hand_out(4, Time(0), send));
            assert_eq!(sent.borrow().len(), 4 * (usize::from(n) - 49), "no more at once");
            d.take_in(&frame(A, n), send);
        }
        assert!(!d.hand_out(64, Time(0), send));
        d.take_in(&frame(A, 60), send);
        assert_eq!(*sent.borrow(), (0..=60).collect::<Vec<u8>>());
        // It is not forgotten before all has been given back.
        d.word(A, HoldWord::Keep, None);
        (61..70).for_each(|n| d.take_in(&frame(A, n), send));
        d.word(A, HoldWord::Return, None);
        assert!(d.hand_out(5, Time(0), send));
        assert_eq!(d.deadline(), None);
        assert!(!d.hand_out(5, Time(7), send));
        assert_eq!(d.deadline(), Some(Time(7) + LINGER));
        assert!(!d.hand_out(5, Time(9), send));
        let mut held = Vec::new();
        d.over(Time(7) + LINGER, |m, h| held.push((m, h)));
        assert_eq!(held, [(A, Held { kept: 69, relayed: 1, dropped: 0 })]);
        assert_eq!(sent.borrow().len(), 70);
    }

    #[test]
    fn what_cannot_be_sent_and_what_finds_no_room_is_counted_and_others_are_nobodys() {
        let mut d = desk();
        let fails = |_: &Mode<()>, _: &[u8]| Err(io::ErrorKind::NotConnected.into());
        d.word(A, HoldWord::Keep, None);
        (0..101).for_each(|n| d.take_in(&frame(A, n), fails));
        d.take_in(&frame(B, 1), fails);
        d.take_in(&A.0[..5], fails);
        d.word(A, HoldWord::Return, None);
        assert!(!d.hand_out(1000, Time(0), fails));
        let mut held = Vec::new();
        d.over(Time(0) + LINGER, |m, h| held.push((m, h)));
        assert_eq!(held, [(A, Held { kept: 0, relayed: 0, dropped: 101 })]);
        assert_eq!(d.deadline(), None);
    }
}
