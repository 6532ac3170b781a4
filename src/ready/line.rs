//! Numbers, first in, first out.
//!
//! A vector and how far it was read: what is taken out stays in front until the line is empty, or
//! has to grow, so that neither end ever wraps. That is a third of the instructions of a ring.

#[derive(Debug, Default)]
pub(super) struct Line {
    numbers: Vec<u32>,
    next: usize,
}

impl Line {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    #[inline]
    pub(super) fn push(&mut self, number: u32) {
        if self.numbers.len() == self.numbers.capacity() {
            self.make_room();
        }
        self.numbers.push(number);
    }

    /// Where at least half of it was taken out, that is room enough.
    #[cold]
    fn make_room(&mut self) {
        if self.next > self.numbers.len() / 2 {
            self.numbers.drain(..std::mem::take(&mut self.next));
        }
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<u32> {
        let number = *self.numbers.get(self.next)?;
        self.next += 1;
        if self.next == self.numbers.len() {
            self.numbers.clear();
            self.next = 0;
        }
        Some(number)
    }

    /// Puts all of another line behind this one.
    pub(super) fn append(&mut self, other: &mut Self) {
        self.numbers.extend_from_slice(&other.numbers[other.next..]);
        other.numbers.clear();
        other.next = 0;
    }
}

#[cfg(all(test, not(any(watershed_loom, watershed_shuttle))))]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    #[test]
    fn what_goes_in_first_comes_out_first() {
        let (mut line, mut model) = (Line::default(), VecDeque::new());
        for step in 0..10_000_u32 {
            // It grows and shrinks, and is empty now and then.
            if step % 97 < 50 || step % 7 == 0 {
                line.push(step);
                model.push_back(step);
            } else {
                assert_eq!(line.pop(), model.pop_front());
            }
            assert_eq!(line.is_empty(), model.is_empty());
        }
        let mut behind = Line::default();
        (0..5).for_each(|number| behind.push(number));
        assert_eq!(behind.pop(), Some(0));
        line.append(&mut behind);
        model.extend(1..5);
        assert!(behind.is_empty());
        while let Some(number) = model.pop_front() {
            assert_eq!(line.pop(), Some(number));
        }
        assert_eq!(line.pop(), None);
    }

    #[test]
    fn a_line_that_is_never_empty_does_not_grow() {
        let mut line = Line::default();
        (0..100).for_each(|number| line.push(number));
        for number in 100..100_000 {
            line.push(number);
            assert_eq!(line.pop(), Some(number - 100));
        }
        assert!(line.numbers.capacity() < 1_000);
    }
}
