//! Transcripts of a recoverer.

use super::transcript;

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
