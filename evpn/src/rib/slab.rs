//! Values under small numbers that are reused.

/// A growable array with holes.
#[derive(Debug)]
pub(super) struct Slab<T> {
    items: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self { items: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Stores a value under a number that is free. Deterministic: the number freed last is used first.
    pub(super) fn insert(&mut self, value: T) -> u32 {
        if let Some(ix) = self.free.pop() {
            self.items[ix as usize] = Some(value);
            ix
        } else {
            self.items.push(Some(value));
            (self.items.len() - 1) as u32
        }
    }

    /// Takes the value out and frees its number.
    pub(super) fn remove(&mut self, ix: u32) -> T {
        let value =
            self.items[ix as usize].take().expect("slab numbers are held only while the value exists");
        self.free.push(ix);
        value
    }

    pub(super) fn get(&self, ix: u32) -> &T {
        self.items[ix as usize].as_ref().expect("slab numbers are held only while the value exists")
    }

    pub(super) fn get_mut(&mut self, ix: u32) -> &mut T {
        self.items[ix as usize].as_mut().expect("slab numbers are held only while the value exists")
    }

    /// Values with their numbers, in the order of the numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.items.iter().enumerate().filter_map(|(i, v)| Some((i as u32, v.as_ref()?)))
    }
}
