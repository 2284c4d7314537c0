//! One connection of a player or a source, from the handshake on.

use super::amf::{self, Value};
use super::chunk::{
    self, ACKNOWLEDGEMENT, COMMAND, Found, PEER_BANDWIDTH, Reader, USER_CONTROL, VIDEO, WINDOW_SIZE, Writer,
};
use super::{Broken, Media};

/// Length of C1, S1, C2 and S2 (specification 1.0, 5.2.3).
const HELLO: usize = 1536;
/// The version of the protocol (5.2.2).
const VERSION: u8 = 3;
/// What a player asks a server to send ahead, in ms.
const BUFFER_MS: u32 = 1000;
/// Bytes of our chunks, once we send more than commands.
const CHUNK: usize = 65_536;
/// User control events (7.1.7).
const SET_BUFFER_LENGTH: u16 = 3;
const PING: u16 = 6;
const PONG: u16 = 7;
/// The commands that we number: their answers are told apart by it.
const CONNECT: f64 = 1.0;
const CREATE_STREAM: f64 = 2.0;
const GO: f64 = 3.0;

/// What to do with the stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Play,
    Publish,
}

#[derive(Debug)]
enum State {
    /// S0 and S1 have not come whole; so many bytes have.
    Hello,
    /// So many bytes of S2 are still to come.
    Echo(usize),
    /// Commands go to and fro.
    Talk,
    /// The server has let us in.
    Live,
}

/// A connection: what came goes into [`Client::feed`], what [`Client::take_output`] gives goes out.
#[derive(Debug)]
pub(crate) struct Client {
    role: Role,
    app: String,
    name: String,
    tc_url: String,
    state: State,
    hello: Vec<u8>,
    reader: Reader,
    writer: Writer,
    out: Vec<u8>,
    /// Number of the message stream that the server gave us.
    stream: u32,
    received: u64,
    acknowledged: u64,
    /// Bytes after which the server wants to be told; 0: never.
    window: u64,
}

impl Client {
    /// Begins: its output is the first thing to send. `authority`: HOST[:PORT].
    pub(crate) fn new(role: Role, authority: &str, app: &str, name: &str) -> Client {
        // C1: time 0, four zeros, and bytes that should be hard to confuse with another's.
        let mut out = vec![VERSION];
        out.extend([0; 8]);
        out.extend((8..HELLO).map(|n| (n * 167 % 251) as u8));
        Client {
            role,
            app: app.into(),
            name: name.into(),
            tc_url: format!("rtmp://{authority}/{app}"),
            state: State::Hello,
            hello: Vec::new(),
            reader: Reader::default(),
            writer: Writer::default(),
            out,
            stream: 0,
            received: 0,
            acknowledged: 0,
            window: 0,
        }
    }

    /// What is to be sent now.
    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out)
    }

    /// The server plays, or takes our stream.
    pub(crate) fn is_live(&self) -> bool {
        matches!(self.state, State::Live)
    }

    /// A video message of a source that is live; what it is made into comes with the output.
    pub(crate) fn send_video(&mut self, ms: u32, body: &[u8]) {
        self.writer
            .message((6, VIDEO, self.stream), ms, body, &mut self.out);
    }

    /// Takes what came; media go to `media`.
    pub(crate) fn feed(&mut self, mut bytes: &[u8], mut media: impl FnMut(Media<'_>)) -> Result<(), Broken> {
        self.received += bytes.len() as u64;
        if let State::Hello = self.state {
            bytes = self.hello(bytes)?;
        }
        if let State::Echo(left) = self.state {
            let (_, rest) = bytes.split_at(left.min(bytes.len()));
            self.state = State::Echo(left - (bytes.len() - rest.len()));
            bytes = rest;
            if let State::Echo(0) = self.state {
                self.state = State::Talk;
                self.connect();
            }
        }
        let mut reader = std::mem::take(&mut self.reader);
        let mut broken = None;
        let read = reader.feed(bytes, |found| match found {
            Found::Media(piece) => {
                media(piece);
                Ok(())
            }
            Found::Message { kind, body } => self.message(kind, body).map_err(|error| {
                broken = Some(error);
                String::new()
            }),
        });
        self.reader = reader;
        self.acknowledge();
        read.map_err(|why| broken.unwrap_or(Broken::Wire(why)))
    }

    /// S0 and S1, which C2 repeats.
    fn hello<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], Broken> {
        let wanted = 1 + HELLO - self.hello.len();
        let (ours, rest) = bytes.split_at(wanted.min(bytes.len()));
        self.hello.extend(ours);
        match self.hello.first() {
            Some(&VERSION) | None => {}
            Some(other) => {
                let why = format!("expected version {VERSION} at first, got the byte {other}");
                return Err(Broken::Wire(why));
            }
        }
        if self.hello.len() == 1 + HELLO {
            self.out.extend(&self.hello[1..]);
            self.hello = Vec::new();
            self.state = State::Echo(HELLO);
        }
        Ok(rest)
    }

    fn command(&mut self, stream: u32, values: &[Value]) {
        let mut body = Vec::new();
        values.iter().for_each(|value| value.write(&mut body));
        self.writer.message((3, COMMAND, stream), 0, &body, &mut self.out);
    }

    /// 7.2.1.1. The numbers say which codecs we know: all.
    fn connect(&mut self) {
        let text = |name: &str, value: &str| (name.to_owned(), Value::Text(value.to_owned()));
        let number = |name: &str, value| (name.to_owned(), Value::Number(value));
        let about = vec![
            text("app", &self.app),
            text("flashVer", "LNX 9,0,124,2"),
            text("tcUrl", &self.tc_url),
            ("fpad".to_owned(), Value::Bool(false)),
            number("capabilities", 15.0),
            number("audioCodecs", 4071.0),
            number("videoCodecs", 252.0),
            number("videoFunction", 1.0),
        ];
        self.command(
            0,
            &[
                Value::Text("connect".into()),
                Value::Number(CONNECT),
                Value::Object(about),
            ],
        );
    }

    fn message(&mut self, kind: u8, body: &[u8]) -> Result<(), Broken> {
        match kind {
            COMMAND => {
                let values = amf::read_all(body).map_err(Broken::Wire)?;
                self.told(&values)
            }
            WINDOW_SIZE => {
                self.window = chunk::number(body).unwrap_or(0).into();
                Ok(())
            }
            PEER_BANDWIDTH => {
                // Our own window, so that the server knows when to tell us (5.4.5).
                let size = body.first_chunk::<4>().copied().unwrap_or_default();
                self.writer.message((2, WINDOW_SIZE, 0), 0, &size, &mut self.out);
                Ok(())
            }
            USER_CONTROL => {
                if let [high, low, time @ ..] = body
                    && u16::from_be_bytes([*high, *low]) == PING
                {
                    let pong = [&PONG.to_be_bytes(), time.get(..4).unwrap_or(&[0; 4])].concat();
                    self.writer.message((2, USER_CONTROL, 0), 0, &pong, &mut self.out);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// A command of the server.
    fn told(&mut self, values: &[Value]) -> Result<(), Broken> {
        let [Value::Text(name), number, rest @ ..] = values else {
            return Err(Broken::Wire("a command without a name".into()));
        };
        match (name.as_str(), number) {
            ("_result", Value::Number(CONNECT)) => self.connected(),
            ("_result", Value::Number(CREATE_STREAM)) => self.created(rest),
            ("_error", _) => Err(Broken::Refused(words(name, rest))),
            ("onStatus", _) => self.status(rest),
            // onBWDone, onFCPublish and other courtesies.
            _ => Ok(()),
        }
    }

    fn connected(&mut self) -> Result<(), Broken> {
        if self.role == Role::Publish {
            self.writer.set_chunk(CHUNK, &mut self.out);
        }
        self.command(
            0,
            &[
                Value::Text("createStream".into()),
                Value::Number(CREATE_STREAM),
                Value::Null,
            ],
        );
        Ok(())
    }

    fn created(&mut self, rest: &[Value]) -> Result<(), Broken> {
        let number = rest.iter().find_map(|value| match value {
            Value::Number(number) => Some(*number as u32),
            _ => None,
        });
        self.stream =
            number.ok_or_else(|| Broken::Wire("createStream was answered without a number".into()))?;
        let (verb, last) = match self.role {
            Role::Play => {
                let mut length = SET_BUFFER_LENGTH.to_be_bytes().to_vec();
                length.extend(self.stream.to_be_bytes());
                length.extend(BUFFER_MS.to_be_bytes());
                self.writer
                    .message((2, USER_CONTROL, 0), 0, &length, &mut self.out);
                ("play", Value::Number(-1000.0)) // live, or nothing (7.2.2.1)
            }
            Role::Publish => ("publish", Value::Text("live".into())),
        };
        let name = Value::Text(self.name.clone());
        self.command(
            self.stream,
            &[
                Value::Text(verb.into()),
                Value::Number(GO),
                Value::Null,
                name,
                last,
            ],
        );
        Ok(())
    }

    fn status(&mut self, rest: &[Value]) -> Result<(), Broken> {
        let find = |name| rest.iter().find_map(|value: &Value| value.text(name));
        match (find("level"), find("code")) {
            (Some("error"), _) => Err(Broken::Refused(words("onStatus", rest))),
            (_, Some("NetStream.Play.Start" | "NetStream.Publish.Start")) => {
                self.state = State::Live;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Tells the server how much has come, each time that half of its window has (5.4.3).
    fn acknowledge(&mut self) {
        if self.window > 0 && self.received - self.acknowledged >= self.window.div_ceil(2) {
            self.acknowledged = self.received;
            let total = (self.received as u32).to_be_bytes();
            self.writer
                .message((2, ACKNOWLEDGEMENT, 0), 0, &total, &mut self.out);
        }
    }
}

/// Why the server says no, as far as it says.
fn words(name: &str, rest: &[Value]) -> String {
    let find = |name| rest.iter().find_map(|value: &Value| value.text(name));
    let words: Vec<&str> = ["code", "description"].into_iter().filter_map(find).collect();
    match words.is_empty() {
        true => name.to_owned(),
        false => words
            .join(": ")
            .chars()
            .filter(|letter| !letter.is_control())
            .take(200)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn client(role: Role) -> Client {
        let mut client = Client::new(role, "h:1", "live", "a");
        assert_eq!(client.take_output().len(), 1 + HELLO);
        client
    }

    fn no_media(_: Media<'_>) {}

    fn command(stream: u32, values: &[Value]) -> Vec<u8> {
        let (mut body, mut out) = (Vec::new(), Vec::new());
        values.iter().for_each(|value| value.write(&mut body));
        Writer::default().message((3, COMMAND, stream), 0, &body, &mut out);
        out
    }

    fn result(number: f64, last: Value) -> Vec<u8> {
        command(
            0,
            &[
                Value::Text("_result".into()),
                Value::Number(number),
                Value::Null,
                last,
            ],
        )
    }

    fn status(level: &str, code: &str) -> Vec<u8> {
        let text = |value: &str| Value::Text(value.into());
        let info = vec![("level".into(), text(level)), ("code".into(), text(code))];
        command(
            1,
            &[
                text("onStatus"),
                Value::Number(0.0),
                Value::Null,
                Value::Object(info),
            ],
        )
    }

    fn hello() -> Vec<u8> {
        let mut bytes = vec![VERSION];
        bytes.extend([7; 2 * HELLO]);
        bytes
    }

    /// Up to the server's permission.
    fn script(code: &str) -> Vec<u8> {
        let mut control = Vec::new();
        Writer::default().message((2, WINDOW_SIZE, 0), 0, &1000u32.to_be_bytes(), &mut control);
        Writer::default().message((2, PEER_BANDWIDTH, 0), 0, &[0, 0, 4, 0, 2], &mut control);
        let object = Value::Object(vec![]);
        [
            hello(),
            control,
            result(1.0, object),
            result(2.0, Value::Number(1.0)),
            status("status", code),
        ]
        .concat()
    }

    /// Names of the commands in what a client sent after its handshake.
    fn said(bytes: &[u8]) -> Vec<String> {
        let (mut reader, mut names) = (Reader::default(), Vec::new());
        let read = reader.feed(bytes, |found| {
            if let Found::Message { kind: COMMAND, body } = found
                && let Value::Text(name) = &amf::read_all(body).unwrap()[0]
            {
                names.push(name.clone());
            }
            Ok(())
        });
        assert_eq!(read, Ok(()));
        names
    }

    #[test]
    fn a_player_gets_to_its_stream_in_any_slicing() {
        for piece in [1, 100, 1536, 10_000] {
            let mut client = client(Role::Play);
            for piece in script("NetStream.Play.Start").chunks(piece) {
                assert!(!client.is_live());
                assert_eq!(client.feed(piece, no_media), Ok(()));
            }
            assert!(client.is_live());
            let out = client.take_output();
            assert_eq!(&out[..HELLO], [7; HELLO], "C2 repeats S1");
            assert_eq!(said(&out[HELLO..]), ["connect", "createStream", "play"]);
        }
    }

    #[test]
    fn a_source_publishes_and_its_pictures_come_out_again() {
        let mut source = client(Role::Publish);
        source.feed(&script("NetStream.Publish.Start"), no_media).unwrap();
        assert_eq!(
            said(&source.take_output()[HELLO..]),
            ["connect", "createStream", "publish"]
        );
        source.send_video(40, &[1; 70_000]);
        let mut player = client(Role::Play);
        player.feed(&script("NetStream.Play.Start"), no_media).unwrap();
        player.take_output();
        let mut chunks = Vec::new();
        Writer::default().set_chunk(CHUNK, &mut chunks);
        let (mut seen, mut firsts) = (0, 0);
        let fed = player.feed(&[chunks, source.take_output()].concat(), |media| {
            (seen, firsts) = (seen + media.bytes.len(), firsts + usize::from(media.first));
        });
        assert_eq!((fed, seen, firsts), (Ok(()), 70_000, 1));
        assert!(
            !player.take_output().is_empty(),
            "half a window has come, and the server is told"
        );
    }

    #[test]
    fn a_ping_is_answered() {
        let mut client = client(Role::Play);
        client.feed(&script("NetStream.Play.Start"), no_media).unwrap();
        client.take_output();
        let mut ping = Vec::new();
        Writer::default().message((2, USER_CONTROL, 0), 0, &[0, 6, 1, 2, 3, 4], &mut ping);
        client.feed(&ping, no_media).unwrap();
        assert!(client.take_output().ends_with(&[0, 7, 1, 2, 3, 4]));
    }

    #[test]
    fn a_refusal_is_told_in_the_servers_words() {
        let mut client = client(Role::Play);
        let refused = status("error", "NetStream.Play.StreamNotFound");
        let fed = client.feed(&[hello(), refused].concat(), no_media);
        assert_eq!(fed, Err(Broken::Refused("NetStream.Play.StreamNotFound".into())));
    }

    #[test]
    fn another_protocol_is_told_by_its_first_byte() {
        let fed = client(Role::Play).feed(b"HTTP/1.1 400 Bad Request\r\n", no_media);
        assert!(matches!(fed, Err(Broken::Wire(why)) if why.contains("got the byte 72")));
    }

    proptest! {
        #[test]
        fn hostile_servers_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..3000), piece in 1usize..700) {
            let mut client = client(Role::Play);
            client.feed(&hello(), no_media).unwrap();
            for piece in bytes.chunks(piece) {
                if client.feed(piece, no_media).is_err() {
                    break;
                }
            }
            // Answers are a few bytes for each message of at least as many.
            prop_assert!(client.take_output().len() <= 2 * HELLO + 20 * bytes.len());
        }

        #[test]
        fn hostile_commands_do_no_harm(at in 3073usize..3600, byte in any::<u8>(), piece in 1usize..700) {
            let mut bytes = script("NetStream.Play.Start");
            let at = at.min(bytes.len() - 1);
            bytes[at] = byte;
            let mut client = client(Role::Play);
            for piece in bytes.chunks(piece) {
                if client.feed(piece, no_media).is_err() {
                    break;
                }
            }
        }
    }
}
