//! Transcripts of a coordinator.

use super::transcript;

#[test]
fn happy_path() {
    transcript(
        "coordinate implicit 0 1
----
timer at 100
prepare 0 not after 1060
prepare 1 not after 1060

vote 0 yes
----

vote 1 yes
----
apply 0 Direct
apply 1 Direct

applied 1 now
----

applied 0 now
----
reply Committed
release 0 leave Nothing
release 1 leave Nothing

released 0 done
----

released 1 done
----
done Committed { left: [] }",
    );
}

/// The client's WATCH has broken on one of several shards that check it: nil, and the others go.
#[test]
fn a_checked_prepare_finds_the_watch_broken() {
    transcript(
        "coordinate implicit 0 1
----
timer at 100
prepare 0 not after 1060
prepare 1 not after 1060

vote 0 yes
----

vote 1 broken
----
reply WatchBroken
abort 0 leave Nothing

aborted 0 done
----
done Aborted { left: [] }",
    );
}

/// The locked run: prepared is committed.
#[test]
fn one_participant() {
    transcript(
        "coordinate implicit 3
----
timer at 100
prepare 3 not after 1060

vote 3 yes
----
apply 3 Direct

applied 3 now
----
reply Committed
release 3 leave Nothing

released 3 done
----
done Committed { left: [] }",
    );
}

/// The client does not wait for the votes that are out, nor for the aborts.
#[test]
fn a_no_is_answered_at_once_and_aborts_what_may_be_prepared() {
    transcript(
        "coordinate implicit 0 1 2 3
----
timer at 100
prepare 0 not after 1060
prepare 1 not after 1060
prepare 2 not after 1060
prepare 3 not after 1060

vote 0 yes
----

vote 1 held
----
reply Aborted(No(Part { shard: 1, db: 0 }, Held { owner: t9, remaining_ms: 5 }))
abort 0 leave Nothing

vote 2 unknown
----
abort 2 leave Nothing, tombstone if absent until 1060

vote 3 late
----

aborted 0 done
----

aborted 2 unknown
----
timer at 2

@2
timer
----
timer at 100
abort 2 leave Nothing, tombstone if absent until 1060

aborted 2 late
----
done Aborted { left: [] }",
    );
}

/// Perhaps it is prepared, perhaps it will be: the coordinator reads, it does not guess.
#[test]
fn silence_is_neither_yes_nor_no() {
    transcript(
        "coordinate implicit 0 1
----
timer at 100
prepare 0 not after 1060
prepare 1 not after 1060

vote 0 yes
----

vote 1 unknown
----
read 0
read 1

read 0 prepared
----

read 1 absent
----
tombstone 1 until 1060

aborted 1 done
----
abort 0 leave Marker, tombstone if absent until 1060
reply Aborted(Silence)

aborted 0 done
----
done Aborted { left: [] }",
    );
}

/// All prepared after all: committed, and the replies are there.
#[test]
fn a_lost_yes_commits() {
    transcript(
        "coordinate implicit 0 1
vote 0 yes
vote 1 unknown
----
timer at 100
prepare 0 not after 1060
prepare 1 not after 1060
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
reply Committed
release 0 leave Marker
release 1 leave Marker",
    );
}

/// The tombstone met a branch that was prepared meanwhile: another recoverer may have read all
/// prepared, so it is left alone and the rules are asked again.
#[test]
fn a_tombstone_spares_what_was_prepared_meanwhile() {
    transcript(
        "coordinate implicit 0 1
vote 0 yes
vote 1 unknown
read 0 prepared
read 1 absent
----
timer at 100
prepare 0 not after 1060
prepare 1 not after 1060
read 0
read 1
tombstone 1 until 1060

aborted 1 still-prepared
----
apply 0 Redo
apply 1 Redo",
    );
}

/// A recoverer may have aborted 0 before 1 was prepared.
#[test]
fn a_yes_past_the_ttl_proves_nothing() {
    transcript(
        "coordinate implicit 0 1
vote 0 yes
----
timer at 100
prepare 0 not after 1060
prepare 1 not after 1060

@9
vote 1 yes
----
read 0
read 1

read 0 aborted
read 1 prepared
----
abort 1 leave Marker, tombstone if absent until 1060
reply Aborted(Silence)",
    );
}

/// A shard that cannot apply keeps its promise: it is asked until it can, never skipped, and
/// nothing is released before.
#[test]
fn a_refused_apply_is_repeated() {
    transcript(
        "coordinate implicit 0 1
vote 0 yes
vote 1 yes
applied 0 now
applied 1 refused
----
timer at 100
prepare 0 not after 1060
prepare 1 not after 1060
apply 0 Direct
apply 1 Direct
timer at 2

@2
timer
----
timer at 100
apply 1 Redo

applied 1 refused
----
timer at 6

@6
timer
applied 1 now
----
timer at 100
apply 1 Redo
reply Committed
release 0 leave Nothing
release 1 leave Nothing",
    );
}

/// Past its TTL others may have looked: an absent record would tell them lies.
#[test]
fn an_answer_past_the_ttl_leaves_markers() {
    transcript(
        "coordinate implicit 0 1
vote 0 yes
vote 1 yes
applied 0 now
----
timer at 100
prepare 0 not after 1060
prepare 1 not after 1060
apply 0 Direct
apply 1 Direct

@9
applied 1 now
----
reply Committed
release 0 leave Marker
release 1 leave Marker",
    );
}

/// The reply names the id, for whose fate may be asked: markers.
#[test]
fn lost_replies_leave_markers() {
    transcript(
        "coordinate implicit 0 1
vote 0 yes
vote 1 yes
applied 0 now
applied 1 unknown
----
timer at 100
prepare 0 not after 1060
prepare 1 not after 1060
apply 0 Direct
apply 1 Direct
timer at 2

@2
timer
applied 1 applied
----
timer at 100
apply 1 Redo
reply CommittedRepliesLost
release 0 leave Marker
release 1 leave Marker",
    );
}

/// Nobody but the coordinator deletes records outright: what it finds absent was lost.
#[test]
fn an_absent_branch_is_never_taken_for_applied() {
    transcript(
        "coordinate implicit 0 1
vote 0 yes
vote 1 yes
applied 0 now
applied 1 absent
----
timer at 100
prepare 0 not after 1060
prepare 1 not after 1060
apply 0 Direct
apply 1 Direct
reply Unknown
done Contradiction(Part { shard: 1, db: 0 })",
    );
}

#[test]
fn patience_ends_with_unknown() {
    transcript(
        "coordinate implicit 0 1
vote 0 yes
vote 1 yes
applied 0 now
applied 1 unknown
----
timer at 100
prepare 0 not after 1060
prepare 1 not after 1060
apply 0 Direct
apply 1 Direct
timer at 2

@100
timer
----
reply Unknown
done Committed { left: [Part { shard: 0, db: 0 }, Part { shard: 1, db: 0 }] }",
    );
}

/// Releases are repeated too, but the client has its reply and others clean up in the end.
#[test]
fn a_release_that_fails_for_ever_is_left_to_others() {
    transcript(
        "coordinate implicit 0
vote 0 yes
applied 0 now
released 0 unknown
----
timer at 100
prepare 0 not after 1060
apply 0 Direct
reply Committed
release 0 leave Nothing
timer at 2

@2
timer
released 0 unknown
----
timer at 100
release 0 leave Nothing
timer at 6

@100
timer
----
done Committed { left: [Part { shard: 0, db: 0 }] }",
    );
}

/// A record that is there before the only prepare ran is not a No: somebody knows better.
#[test]
fn a_record_that_is_there_already_is_looked_into() {
    transcript(
        "coordinate implicit 0 1
vote 0 yes
vote 1 applied
----
timer at 100
prepare 0 not after 1060
prepare 1 not after 1060
read 0
read 1",
    );
    transcript(
        "coordinate implicit 0 1
vote 0 yes
vote 1 aborted
----
timer at 100
prepare 0 not after 1060
prepare 1 not after 1060
reply Aborted(No(Part { shard: 1, db: 0 }, Seen(Aborted)))
abort 0 leave Nothing",
    );
}

/// Strays change nothing: another's answer, an answer twice.
#[test]
fn strays_are_ignored() {
    transcript(
        "coordinate implicit 0 1
vote 0 yes
vote 0 held
vote 7 yes
applied 1 now
read 0 applied
released 0 done
aborted 1 done
timer
----
timer at 100
prepare 0 not after 1060
prepare 1 not after 1060",
    );
}

mod decider {
    use super::transcript;

    #[test]
    fn its_exec_comes_first() {
        transcript(
            "coordinate decider=1 0 1
vote 0 yes
vote 1 yes
----
timer at 100
prepare 0 not after 1060
prepare 1 not after 1060
apply 1 Direct

applied 1 now
----
apply 0 Direct

applied 0 now
----
reply Committed
release 0 leave Nothing
release 1 leave Nothing",
        );
    }

    #[test]
    fn nil_with_the_record_prepared_is_a_broken_watch() {
        transcript(
            "coordinate decider=1 0 1
vote 0 yes
vote 1 yes
----
timer at 100
prepare 0 not after 1060
prepare 1 not after 1060
apply 1 Direct

applied 1 prepared
----
reply WatchBroken
abort 0 leave Nothing
abort 1 leave Nothing",
        );
    }

    /// Its EXEC is the only one; what it refuses is not asked for again.
    #[test]
    fn a_refused_exec_aborts() {
        transcript(
            "coordinate decider=0 0 1
vote 0 yes
vote 1 yes
applied 0 refused
----
timer at 100
prepare 0 not after 1060
prepare 1 not after 1060
apply 0 Direct
reply Aborted(No(Part { shard: 0, db: 0 }, Refused(\"the watching shard refused to apply\")))
abort 0 leave Nothing
abort 1 leave Nothing",
        );
    }

    /// Silence: perhaps it has applied. Its record decides, and is made to.
    #[test]
    fn silence_of_its_exec_is_looked_into() {
        transcript(
            "coordinate decider=0 0 1
vote 0 yes
vote 1 yes
applied 0 unknown
----
timer at 100
prepare 0 not after 1060
prepare 1 not after 1060
apply 0 Direct
read 0
read 1

read 0 prepared
read 1 prepared
----
abort 0 leave Marker, tombstone if absent until 1060

aborted 0 applied
----
apply 1 Redo

applied 1 now
----
reply CommittedRepliesLost
release 0 leave Marker
release 1 leave Marker",
        );
    }
}
