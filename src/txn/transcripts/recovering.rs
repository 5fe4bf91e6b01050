//! Transcripts of a recoverer.

use super::transcript;

/// Not by the lock's absence, and not a moment earlier.
#[test]
fn starts_only_past_the_deadline() {
    transcript(
        "@9
recover implicit 0=prepared 0 1
----
Wait(1)",
    );
    transcript(
        "@9
recover implicit 0=applied 0 1
----
Wait(1)",
    );
}

#[test]
fn starts_from_a_record_that_promises_something() {
    for reading in ["absent", "unreachable", "aborted"] {
        transcript(&format!(
            "@99\nrecover implicit 0={reading} 0 1\n----\nNothing"
        ));
    }
}

#[test]
fn does_not_touch_what_is_not_ours() {
    transcript("@99\nrecover implicit 0=prepared 1 2\n----\nMalformed");
    transcript("@99\nrecover implicit 0=prepared\n----\nMalformed");
    transcript("@99\nrecover decider=2 0=prepared 0 1\n----\nMalformed");
}

#[test]
fn all_prepared_is_rolled_forward() {
    transcript(
        "@10
recover implicit 0=prepared 0 1
----
timer at 110
read 0
read 1

read 0 prepared
read 1 prepared
----
apply 0 Redo
apply 1 Redo

applied 0 now
applied 1 now
----
release 0 leave Marker
release 1 leave Marker

released 0 done
released 1 done
----
done Committed { left: [] }",
    );
}

/// The release of 1 came, that of 0 did not. Asked in another order this would be torn.
#[test]
fn applied_beside_absent_is_committed() {
    transcript(
        "@10
recover implicit 0=applied 0 1
read 0 applied
read 1 absent
----
timer at 110
read 0
read 1
apply 1 Redo

applied 1 absent
----
release 0 leave Marker

released 0 done
----
done Committed { left: [] }",
    );
}

/// It was read absent before its late prepare ran, 0 was applied by another recoverer since: to
/// release 0 now would leave 1 behind.
#[test]
fn absent_may_be_prepared_by_now() {
    transcript(
        "@10
recover implicit 0=prepared 0 1
read 1 absent
read 0 applied
----
timer at 110
read 0
read 1
apply 1 Redo

applied 1 now
----
release 0 leave Marker
release 1 leave Marker",
    );
}

#[test]
fn absent_is_made_final_before_anything_is_aborted() {
    transcript(
        "@10
recover implicit 0=prepared 0 1
read 0 prepared
read 1 absent
----
timer at 110
read 0
read 1
tombstone 1 until 1070

aborted 1 done
----
abort 0 leave Marker, tombstone if absent until 1070

aborted 0 done
----
done Aborted { left: [] }",
    );
}

/// Too late for a tombstone is too late for the prepare.
#[test]
fn late_is_as_good_as_a_tombstone() {
    transcript(
        "@99
recover implicit 0=prepared 0 1
read 0 prepared
read 1 absent
aborted 1 late
----
timer at 199
read 0
read 1
tombstone 1 until 1070
abort 0 leave Marker, tombstone if absent until 1070",
    );
}

#[test]
fn a_tombstone_found_aborts() {
    transcript(
        "@10
recover implicit 0=prepared 0 1 2
read 0 prepared
read 1 aborted
read 2 absent
----
timer at 110
read 0
read 1
read 2
abort 0 leave Marker, tombstone if absent until 1070
abort 2 leave Marker, tombstone if absent until 1070",
    );
}

/// Somebody else was done with it. Nothing is written, nothing is claimed.
#[test]
fn all_absent_is_nothing() {
    transcript(
        "@10
recover implicit 0=prepared 0 1
read 0 absent
read 1 absent
----
timer at 110
read 0
read 1
done Nothing",
    );
}

/// One applied is enough to know; who was not reached is asked to apply until he answers.
#[test]
fn commits_without_having_reached_all() {
    transcript(
        "@10
recover implicit 0=applied 0 1
read 0 applied
read 1 unreachable
----
timer at 110
read 0
read 1
timer at 12
apply 1 Redo

applied 1 unknown
----

@12
timer
----
timer at 110
apply 1 Redo

@110
timer
----
done Committed { left: [Part { shard: 0, db: 0 }, Part { shard: 1, db: 0 }] }",
    );
}

/// All that were reached are prepared: that is not all.
#[test]
fn unreachable_is_asked_again_and_in_doubt_in_the_end() {
    transcript(
        "@10
recover implicit 0=prepared 0 1
read 0 prepared
read 1 unreachable
----
timer at 110
read 0
read 1
timer at 12

@12
timer
read 1 unreachable
----
timer at 110
read 1
timer at 16

@110
timer
----
done InDoubt { unreachable: [Part { shard: 1, db: 0 }] }",
    );
}

/// What was read is too old by then; the answer is not even looked at.
#[test]
fn readings_age() {
    transcript(
        "@10
recover implicit 0=prepared 0 1
read 0 prepared
----
timer at 110
read 0
read 1

@110
read 1 prepared
----
done InDoubt { unreachable: [Part { shard: 1, db: 0 }] }",
    );
}

#[test]
fn a_contradiction_stops_everything() {
    transcript(
        "@10
recover implicit 0=prepared 0 1
read 0 prepared
read 1 prepared
applied 0 aborted
----
timer at 110
read 0
read 1
apply 0 Redo
apply 1 Redo
done Contradiction(Part { shard: 0, db: 0 })",
    );
}

mod decider {
    use super::transcript;

    /// The client's WATCH may have broken.
    #[test]
    fn all_prepared_is_not_committed() {
        transcript(
            "@10
recover decider=0 1=prepared 0 1
read 0 prepared
read 1 prepared
----
timer at 110
read 0
read 1
abort 0 leave Marker, tombstone if absent until 1070

aborted 0 done
----
abort 1 leave Marker, tombstone if absent until 1070

aborted 1 done
----
done Aborted { left: [] }",
        );
    }

    /// It may be released and gone.
    #[test]
    fn any_applied_is_asked_before_the_decider() {
        transcript(
            "@10
recover decider=0 1=applied 0 1 2
read 0 absent
read 1 applied
read 2 prepared
----
timer at 110
read 0
read 1
read 2
apply 2 Redo

applied 2 now
----
release 0 leave Marker
release 1 leave Marker
release 2 leave Marker",
        );
    }

    #[test]
    fn the_decider_applied_meanwhile() {
        transcript(
            "@10
recover decider=0 1=prepared 0 1
read 0 prepared
read 1 prepared
aborted 0 applied
----
timer at 110
read 0
read 1
abort 0 leave Marker, tombstone if absent until 1070
apply 1 Redo",
        );
    }

    /// Nothing is known without it.
    #[test]
    fn an_unreachable_decider_leaves_doubt() {
        transcript(
            "@10
recover decider=0 1=prepared 0 1
read 0 unreachable
read 1 prepared
----
timer at 110
read 0
read 1
timer at 12

@110
timer
----
done InDoubt { unreachable: [Part { shard: 0, db: 0 }] }",
        );
    }
}
