//! Interned attributes: every distinct combination is stored once, counted, and known by a number.

use super::best::Rank;
use super::eligible::{self, WhyNot};
use super::slab::Slab;
use super::table::GroupIx;
use crate::types::{Esi, Label};
use crate::wire::{Attrs, NextHop};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Number of an interned [`Attrs`].
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct AttrsIx(u32);

/// Number of a [`Set`]. Two routes are equal in all but their key if and only if their numbers are.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct SetIx(pub(super) u32);

/// Everything of a route that is not its key.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct SetKey {
    pub(super) attrs: AttrsIx,
    pub(super) next_hop: NextHop,
    /// Of a Type-2 route; zero otherwise.
    pub(super) esi: Esi,
    /// Of a Type-2 route; 0 otherwise.
    pub(super) label1: Label,
    /// Of a Type-2 route.
    pub(super) label2: Option<Label>,
    /// Originated here.
    pub(super) own: bool,
    /// Of a neighbour that is away and has not told it again (BGP-GR-09).
    pub(super) stale: bool,
}

/// A [`SetKey`] with what follows from it.
#[derive(Debug)]
pub(super) struct Set {
    refs: u32,
    pub(super) key: SetKey,
    pub(super) attrs: Arc<Attrs>,
    pub(super) rank: Rank,
    /// R flag of the ARP/ND community (RFC 9047 §2).
    pub(super) router: bool,
    /// Its O flag; true without one (PROXY-EC-02).
    pub(super) over: bool,
    /// Its I flag.
    pub(super) immutable: bool,
    /// The mark of a guest that has stopped (PIT-26).
    pub(super) going: bool,
    /// Why no route with it is used; `None` for our own.
    pub(super) bar: Option<WhyNot>,
    /// VNIs that import it.
    pub(super) group: GroupIx,
}

/// The store.
#[derive(Debug, Default)]
pub(super) struct Sets {
    by_attrs: BTreeMap<Arc<Attrs>, AttrsIx>,
    attrs: Slab<(Arc<Attrs>, u32)>,
    by_key: BTreeMap<SetKey, SetIx>,
    entries: Slab<Set>,
}

impl Sets {
    /// The number of these attributes; the caller holds a count and gives it back with [`Self::release_attrs`].
    pub(super) fn intern_attrs(&mut self, attrs: &Attrs) -> AttrsIx {
        if let Some(&ix) = self.by_attrs.get(attrs) {
            self.attrs.get_mut(ix.0).1 += 1;
            return ix;
        }
        self.add_attrs(Arc::new(attrs.clone()))
    }

    /// The same without a copy.
    pub(super) fn intern_attrs_arc(&mut self, attrs: Arc<Attrs>) -> AttrsIx {
        if let Some(&ix) = self.by_attrs.get(&attrs) {
            self.attrs.get_mut(ix.0).1 += 1;
            return ix;
        }
        self.add_attrs(attrs)
    }

    fn add_attrs(&mut self, attrs: Arc<Attrs>) -> AttrsIx {
        let ix = AttrsIx(self.attrs.insert((Arc::clone(&attrs), 1)));
        self.by_attrs.insert(attrs, ix);
        ix
    }

    pub(super) fn release_attrs(&mut self, ix: AttrsIx) {
        let (_, refs) = self.attrs.get_mut(ix.0);
        *refs -= 1;
        if *refs == 0 {
            let (attrs, _) = self.attrs.remove(ix.0);
            self.by_attrs.remove(&attrs);
        }
    }

    pub(super) fn attrs(&self, ix: AttrsIx) -> &Arc<Attrs> {
        &self.attrs.get(ix.0).0
    }

    /// The number of this set if it is there; the caller then holds a count.
    pub(super) fn find(&mut self, key: &SetKey) -> Option<SetIx> {
        let ix = *self.by_key.get(key)?;
        self.retain(ix);
        Some(ix)
    }

    /// A set that [`Self::find`] did not find; the caller holds a count.
    pub(super) fn add(&mut self, key: SetKey, bar: Option<WhyNot>, group: GroupIx) -> SetIx {
        let (attrs, refs) = self.attrs.get_mut(key.attrs.0);
        *refs += 1;
        let attrs = Arc::clone(attrs);
        let (mut rank, nd) = Rank::new(&attrs, eligible::vtep(key.next_hop));
        rank.stale |= key.stale;
        let (router, over, immutable) =
            nd.map_or((false, true, false), |f| (f.router, f.r#override, f.immutable));
        let going = attrs.is_going();
        let set = Set { refs: 1, key, attrs, rank, router, over, immutable, going, bar, group };
        let ix = SetIx(self.entries.insert(set));
        self.by_key.insert(key, ix);
        ix
    }

    pub(super) fn retain(&mut self, ix: SetIx) {
        self.entries.get_mut(ix.0).refs += 1;
    }

    /// Gives a count back. Returns the group of the set if that was the last.
    #[must_use]
    pub(super) fn release(&mut self, ix: SetIx) -> Option<GroupIx> {
        let set = self.entries.get_mut(ix.0);
        set.refs -= 1;
        if set.refs > 0 {
            return None;
        }
        let set = self.entries.remove(ix.0);
        self.by_key.remove(&set.key);
        drop(set.attrs);
        self.release_attrs(set.key.attrs);
        Some(set.group)
    }

    pub(super) fn get(&self, ix: SetIx) -> &Set {
        self.entries.get(ix.0)
    }

    pub(super) fn get_mut(&mut self, ix: SetIx) -> &mut Set {
        self.entries.get_mut(ix.0)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SetIx, &Set)> {
        self.entries.iter().map(|(ix, s)| (SetIx(ix), s))
    }

    /// Distinct sets and distinct attributes held.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.by_key.len(), self.by_attrs.len())
    }
}
