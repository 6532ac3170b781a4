//! Which priorities have a source that is known to be ready.
//!
//! A lane whose turn ended before its source did is ready; one that found its source pending is
//! not, until it has had another turn. As long as a source is ready, the turns of lanes with a
//! higher number are one message long: slow, and never starved.

#[derive(Debug, Default)]
pub(super) struct Urgency {
    /// By priority, the most urgent first: how many lanes are ready.
    levels: Vec<(u32, usize)>,
}

impl Urgency {
    /// Makes room for the lanes of a priority.
    pub(super) fn add_level(&mut self, priority: u32) {
        if let Err(place) = self.levels.binary_search_by_key(&priority, |(level, _)| *level) {
            self.levels.insert(place, (priority, 0));
        }
    }

    /// Whether a lane with this priority has to wait for more urgent ones.
    #[inline]
    pub(super) fn is_outranked(&self, priority: u32) -> bool {
        let above = self.levels.iter().take_while(|(level, _)| *level < priority);
        self.levels.len() > 1 && above.into_iter().any(|(_, ready)| *ready > 0)
    }

    /// Books that a lane has become ready, or is not any more.
    #[inline]
    pub(super) fn set_ready(&mut self, priority: u32, known: &mut bool, ready: bool) {
        if self.levels.len() < 2 || *known == ready {
            return;
        }
        *known = ready;
        if let Some((_, count)) = self.levels.iter_mut().find(|(level, _)| *level == priority) {
            *count = if ready { *count + 1 } else { *count - 1 };
        }
    }
}
