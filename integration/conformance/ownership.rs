//! I6: nothing that belongs to another transaction is ever removed.

use lockstep::txn::{Aborted, Leave, Released, names};

use crate::shard::{Shard, id, intent};

/// What another transaction may have taken over after damage: locks, index, settling.
fn take_over(shard: &mut Shard, keys: &str) {
    for (i, key) in keys.split(' ').enumerate() {
        match i % 3 {
            0 => shard.text(&format!("SET __lockstep:lock:{key} t2")),
            1 => shard.text(&format!("HSET __lockstep:index {key} t2")),
            _ => shard.text(&format!("HSET __lockstep:settling {key} t2")),
        };
    }
}

fn anothers_is_left(keys: &str, applied: bool) {
    let mut shard = Shard::start();
    shard.prepare(&id("t1"), &intent(keys, &[]));
    if applied {
        shard.apply(&id("t1"));
    }
    take_over(&mut shard, keys);
    if applied {
        let released = shard.release(&id("t1"), Leave::Nothing);
        assert_eq!(released, Released::Done);
    } else {
        assert_eq!(shard.abort(&id("t1"), Leave::Nothing, None), Aborted::Done);
    }
    for (i, key) in keys.split(' ').enumerate() {
        let mine = |at: usize| {
            if i % 3 == at {
                "$2\r\nt2\r\n"
            } else {
                "$-1\r\n"
            }
        };
        assert_eq!(shard.text(&format!("GET __lockstep:lock:{key}")), mine(0));
        assert_eq!(shard.text(&format!("HGET __lockstep:index {key}")), mine(1));
        assert_eq!(
            shard.text(&format!("HGET __lockstep:settling {key}")),
            mine(2)
        );
    }
}

#[test]
fn release_leaves_what_is_anothers() {
    anothers_is_left("a b c", true);
    anothers_is_left("a b c d e f g h", true);
}

#[test]
fn abort_leaves_what_is_anothers() {
    anothers_is_left("a b c", false);
    anothers_is_left("a b c d e f g h", false);
}

/// A late release of a transaction whose keys another has locked since.
#[test]
fn a_late_release_does_not_touch_the_next_holder() {
    let mut shard = Shard::start();
    shard.prepare(&id("t1"), &intent("a", &["SET a 1"]));
    shard.apply(&id("t1"));
    shard.release(&id("t1"), Leave::Marker);
    shard.prepare(&id("t2"), &intent("a", &["SET a 2"]));
    shard.apply(&id("t2"));
    // But for how long the first one's marker stays.
    let holdings = |shard: &mut Shard| {
        let mut all = shard.digest();
        all.remove(names::MARKERS);
        all
    };
    let before = holdings(&mut shard);
    assert_eq!(shard.release(&id("t1"), Leave::Marker), Released::Done);
    assert_eq!(
        shard.abort(&id("t1"), Leave::Nothing, None),
        Aborted::Applied
    );
    assert_eq!(holdings(&mut shard), before);
}
