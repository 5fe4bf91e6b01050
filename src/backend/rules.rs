//! The two rules by which replies of plain commands leave, without the sockets they come from:
//! the model checker explores this source.

use std::collections::HashSet;

/// What a look behind a batch saw of what settles on its shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Settling<'a> {
    /// Nothing.
    Nothing,
    /// Something; it is not known what.
    Something,
    /// These slots, and no others.
    Slots(&'a HashSet<u16>),
}

impl Settling<'_> {
    /// The hold rule: whether a reply to a command on this slot, which ran before the look, may
    /// leave. If not, a later look may let it.
    pub fn may_leave(self, slot: u16) -> bool {
        match self {
            Self::Nothing => true,
            Self::Something => false,
            Self::Slots(slots) => !slots.contains(&slot),
        }
    }
}

/// The epoch that is known of a shard once the look at its index, *behind* the one at the epoch,
/// is there: only with an empty index does it stand for a shard without any transaction.
pub fn known_epoch<T>(seen: Option<T>, index_is_empty: bool) -> Option<T> {
    seen.filter(|_| index_is_empty)
}

/// The epoch rule: whether a piece of a split read is consistent with all transactions. `known`
/// is what [`known_epoch`] gave before the *first* piece of that read was sent to any shard;
/// `behind` is the epoch as it was behind this piece.
pub fn is_consistent<T: PartialEq + ?Sized>(known: Option<&T>, behind: &T) -> bool {
    known == Some(behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// P2: what is not known to be free is held.
    #[test]
    fn only_what_is_known_to_be_free_may_leave() {
        let slots = HashSet::from([7]);
        assert!(Settling::Nothing.may_leave(7));
        assert!(!Settling::Something.may_leave(8));
        assert!(!Settling::Slots(&slots).may_leave(7));
        assert!(Settling::Slots(&slots).may_leave(8));
    }

    /// P2: an epoch proves nothing unless it was known with an empty index.
    #[test]
    fn an_epoch_beside_an_index_is_not_known() {
        assert_eq!(known_epoch(Some(3), false), None);
        assert!(!is_consistent(known_epoch(Some(&3), false), &3));
        assert!(is_consistent(known_epoch(Some(&3), true), &3));
        assert!(!is_consistent(known_epoch(Some(&3), true), &4));
    }
}
