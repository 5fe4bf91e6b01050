//! A blocking client that shows exactly the bytes that came back.

use super::value::{Value, escape};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// How long a call waits for its reply unless told otherwise: beyond every time limit of the
/// proxy's defaults, so that a test sees the proxy's error and not its own.
pub const REPLY_LIMIT: Duration = Duration::from_secs(30);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// One reply: its bytes and its meaning.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// As they came over the wire, the last line end included.
    pub raw: Vec<u8>,
    /// What they say.
    pub value: Value,
}

impl Reply {
    /// The raw bytes, printable.
    pub fn text(&self) -> String {
        escape(&self.raw)
    }
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    start: usize,
}

impl Client {
    /// Connects to a loopback port.
    pub fn connect(port: u16) -> io::Result<Client> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(REPLY_LIMIT))?;
        stream.set_write_timeout(Some(REPLY_LIMIT))?;
        Ok(Client {
            stream,
            received: Vec::new(),
            start: 0,
        })
    }

    /// How long reading one reply may take.
    pub fn reply_limit(&mut self, limit: Duration) {
        self.stream
            .set_read_timeout(Some(limit))
            .expect("a limit above zero");
    }

    /// How long one write may block.
    pub fn write_limit(&mut self, limit: Duration) {
        self.stream
            .set_write_timeout(Some(limit))
            .expect("a limit above zero");
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends what fits at once: how many bytes went before the write limit.
    pub fn send_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    /// Reads the next reply. A closed connection is `UnexpectedEof`, a reply that does not
    /// come in time `WouldBlock` or `TimedOut`, bytes that are no reply `InvalidData`.
    pub fn read(&mut self) -> io::Result<Reply> {
        loop {
            if let Some(reply) = self.take()? {
                return Ok(reply);
            }
            self.fill()?;
        }
    }

    fn take(&mut self) -> io::Result<Option<Reply>> {
        let bytes = &self.received[self.start..];
        let parsed = Value::parse(bytes)
            .map_err(|bad| io::Error::new(ErrorKind::InvalidData, bad.to_string()))?;
        Ok(parsed.map(|(value, length)| {
            let raw = bytes[..length].to_vec();
            self.start += length;
            Reply { raw, value }
        }))
    }

    fn fill(&mut self) -> io::Result<()> {
        if self.start > 0 {
            self.received.drain(..self.start);
            self.start = 0;
        }
        let mut chunk = [0; 65_536];
        let count = self.stream.read(&mut chunk)?;
        if count == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        self.received.extend_from_slice(&chunk[..count]);
        Ok(())
    }

    /// Sends one command and reads its reply.
    pub fn try_call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> io::Result<Reply> {
        self.send(&encode(args))?;
        self.read()
    }

    /// Sends one command and reads its reply; a connection that fails ends the test.
    pub fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Reply {
        self.try_call(args)
            .unwrap_or_else(|error| panic!("{}: {error}", escape(&encode(args))))
    }

    /// Like [`Client::call`], only the value.
    pub fn value<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Value {
        self.call(args).value
    }

    /// A command line with blanks between its words.
    pub fn say(&mut self, line: &str) -> Value {
        let words: Vec<&str> = line.split_whitespace().collect();
        self.value(&words)
    }

    /// Sends several commands in one write and reads all replies.
    pub fn try_pipeline<A: AsRef<[u8]>>(&mut self, commands: &[Vec<A>]) -> io::Result<Vec<Reply>> {
        let bytes: Vec<u8> = commands.iter().flat_map(|args| encode(args)).collect();
        self.send(&bytes)?;
        commands.iter().map(|_| self.read()).collect()
    }

    /// MULTI, the commands, EXEC in one write; the reply of EXEC. An error anywhere before is
    /// EXEC's to report.
    pub fn try_transaction<A: AsRef<[u8]>>(&mut self, commands: &[Vec<A>]) -> io::Result<Value> {
        let mut bytes = encode(&["MULTI"]);
        for args in commands {
            bytes.extend(encode(args));
        }
        bytes.extend(encode(&["EXEC"]));
        self.send(&bytes)?;
        for _ in 0..=commands.len() {
            self.read()?;
        }
        Ok(self.read()?.value)
    }

    /// Whether the other side has closed; waits at most `limit` and skips what still arrives.
    pub fn is_closed_within(&mut self, limit: Duration) -> bool {
        self.reply_limit(limit);
        let mut chunk = [0; 65_536];
        let closed = loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(error) => break error.kind() == ErrorKind::ConnectionReset,
            }
        };
        self.reply_limit(REPLY_LIMIT);
        closed
    }

    /// What one read brings, nothing at the end; without a look at replies.
    pub fn read_some(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = self.received.split_off(self.start);
        self.received.clear();
        self.start = 0;
        if bytes.is_empty() {
            bytes.resize(65_536, 0);
            let count = self.stream.read(&mut bytes)?;
            bytes.truncate(count);
        }
        Ok(bytes)
    }

    /// Everything the other side still sends until it closes or `limit` passes without a byte;
    /// the flag says whether it has closed.
    pub fn drain(&mut self, limit: Duration) -> (Vec<u8>, bool) {
        self.reply_limit(limit);
        let mut bytes = self.received.split_off(self.start);
        self.received.clear();
        self.start = 0;
        let mut chunk = [0; 65_536];
        let closed = loop {
            match self.stream.read(&mut chunk) {
                Ok(0) => break true,
                Ok(count) => bytes.extend_from_slice(&chunk[..count]),
                Err(error) => break error.kind() == ErrorKind::ConnectionReset,
            }
        };
        self.reply_limit(REPLY_LIMIT);
        (bytes, closed)
    }

    /// The same connection once more, for another thread that only sends.
    pub fn second_handle(&self) -> Client {
        Client {
            stream: self.stream.try_clone().expect("a second handle"),
            received: Vec::new(),
            start: 0,
        }
    }

    /// Sends nothing more; the other side reads an end.
    pub fn finish_writing(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

/// A command as clients send it: an array of bulk strings.
pub fn encode<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        let arg = arg.as_ref();
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
