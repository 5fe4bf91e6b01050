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
