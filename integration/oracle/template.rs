//! Command templates: `SET <key> <value> [NX|XX] (<score> <member>)+`.
//!
//! `<name>` stands for a random value of that kind, `[…|…]` for one of the alternatives or
//! nothing, `{…|…}` for one of the alternatives, `(…)+` for one to four repetitions, `"…"` for
//! text with blanks. A `!` in front: leave the command as it is, never spoil its arguments.

use crate::script::words;

/// A part of a template.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// Text as it is.
    Text(Vec<u8>),
    /// A random value of this kind.
    Kind(String),
    /// One of these; or nothing, if the flag says so.
    Choice(Vec<Vec<Node>>, bool),
    /// One to four times.
    Many(Vec<Node>),
}

/// A parsed template.
#[derive(Clone, Debug)]
pub struct Template {
    /// Its parts.
    pub nodes: Vec<Node>,
    /// Whether its arguments may be spoiled without changing which keys it names.
    pub may_spoil: bool,
}

impl Template {
    /// Reads one line; panics with the line if it is not a template.
    pub fn read(line: &str) -> Template {
        let (fixed, body) = match line.strip_prefix('!') {
            Some(body) => (true, body),
            None => (false, line),
        };
        let spaced = space_out(body);
        let tokens = words(&spaced).unwrap_or_else(|| panic!("bad quotes in {line}"));
        let mut tokens = tokens.into_iter().peekable();
        let nodes = sequence(&mut tokens, &mut None);
        assert!(tokens.next().is_none(), "unbalanced: {line}");
        let keys = count_keys(&nodes);
        Template {
            nodes,
            may_spoil: !fixed && keys <= 1,
        }
    }
}

/// Puts blanks around brackets and bars outside quotes.
fn space_out(body: &str) -> String {
    let (mut text, mut quoted) = (String::new(), false);
    for symbol in body.replace(")+", ")").chars() {
        quoted ^= symbol == '"';
        if !quoted && "[]{}()|".contains(symbol) {
            text.extend([' ', symbol, ' ']);
        } else {
            text.push(symbol);
        }
    }
    text
}

type Tokens = std::iter::Peekable<std::vec::IntoIter<Vec<u8>>>;

/// Nodes up to a closing bracket or a bar, which is left in `end`.
fn sequence(tokens: &mut Tokens, end: &mut Option<u8>) -> Vec<Node> {
    let mut nodes = Vec::new();
    while let Some(token) = tokens.next() {
        match token.as_slice() {
            b"[" => nodes.push(Node::Choice(alternatives(tokens, b']'), true)),
            b"{" => nodes.push(Node::Choice(alternatives(tokens, b'}'), false)),
            b"(" => nodes.push(Node::Many(alternatives(tokens, b')').remove(0))),
            [byte @ (b']' | b'}' | b')' | b'|')] => {
                *end = Some(*byte);
                return nodes;
            }
            [b'<', name @ .., b'>'] => {
                nodes.push(Node::Kind(String::from_utf8_lossy(name).into_owned()));
            }
            text => nodes.push(Node::Text(text.to_vec())),
        }
    }
    *end = None;
    nodes
}

fn alternatives(tokens: &mut Tokens, close: u8) -> Vec<Vec<Node>> {
    let mut all = Vec::new();
    loop {
        let mut end = None;
        all.push(sequence(tokens, &mut end));
        match end {
            Some(b'|') => {}
            Some(byte) if byte == close => return all,
            other => panic!("expected {} and found {other:?}", char::from(close)),
        }
    }
}

fn count_keys(nodes: &[Node]) -> usize {
    let count = |node: &Node| match node {
        Node::Text(_) => 0,
        Node::Kind(name) => usize::from(name == "key") + 2 * usize::from(name == "tag"),
        Node::Choice(all, _) => all.iter().map(|nodes| count_keys(nodes)).sum(),
        Node::Many(nodes) => 2 * count_keys(nodes),
    };
    nodes.iter().map(count).sum()
}
