//! A proxy before an S3 server that keeps a record of the requests, and does to some of them what bad networks, bad
//! disks and changed rights do.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// The head of a request.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(header, _)| header == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Whether it has this method and this text in its path or query.
    pub fn is(&self, method: &str, part: &str) -> bool {
        self.method == method && self.target.contains(part)
    }

    /// The key of an object, or of a folder of objects.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// What is done to a request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The server does not hear of it; the answer has this status and S3's code.
    Answer(u16, &'static str),
    /// Half of its body arrives, then the connection is cut.
    CutUpload,
    /// Half of the answer's body arrives, then the connection is cut.
    CutAnswer,
    /// One bit of its body is another.
    FlipUpload,
    /// One bit of the answer's body is another.
    FlipAnswer,
    /// The header has another value.
    Header(&'static str, String),
}

type Rule = dyn FnMut(&Request) -> Option<Fault> + Send;

struct Shared {
    server_port: u16,
    rule: Mutex<Box<Rule>>,
    requests: Mutex<Vec<Request>>,
    faults: AtomicUsize,
}

/// A running proxy; it lives as long as the test process.
pub struct FaultyProxy {
    /// Such as `http://127.0.0.1:7070`.
    pub endpoint: String,
    shared: Arc<Shared>,
}

impl FaultyProxy {
    /// Listens, and passes every request on to a port of loopback.
    pub fn start(server_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("it listens"));
        let shared = Arc::new(Shared {
            server_port,
            rule: Mutex::new(Box::new(|_| None)),
            requests: Mutex::default(),
            faults: AtomicUsize::new(0),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                let shared = Arc::clone(&accepting);
                // An error is the end of the connection, as it should be.
                std::thread::spawn(move || drop(serve(&shared, &client)));
            }
        });
        Self { endpoint, shared }
    }

    /// Asked for every request from now on.
    pub fn rule(&self, rule: impl FnMut(&Request) -> Option<Fault> + Send + 'static) {
        *guard(&self.shared.rule) = Box::new(rule);
    }

    /// Does the same to the first `count` requests that `concerns` names.
    pub fn first(&self, count: usize, fault: Fault, concerns: impl Fn(&Request) -> bool + Send + 'static) {
        let mut left = count;
        self.rule(move |request| {
            let hit = left > 0 && concerns(request);
            left -= usize::from(hit);
            hit.then(|| fault.clone())
        });
    }

    /// Does the same to every request that `concerns` names.
    pub fn always(&self, fault: Fault, concerns: impl Fn(&Request) -> bool + Send + 'static) {
        self.first(usize::MAX, fault, concerns);
    }

    /// From now on nothing is done to any request.
    pub fn heal(&self) {
        self.rule(|_| None);
    }

    /// How many requests something was done to.
    pub fn faults(&self) -> usize {
        self.shared.faults.load(Ordering::SeqCst)
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        guard(&self.shared.requests).clone()
    }
}

fn guard<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no thread panicked")
}

/// A message: its first line, its headers as they came, and its length where it tells.
struct Head {
    lines: Vec<String>,
}

impl Head {
    /// `None` at the end of the connection.
    fn read(from: &mut impl BufRead) -> std::io::Result<Option<Self>> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if from.read_line(&mut line)? == 0 {
                return Ok(None);
            }
            let line = line.trim_end().to_owned();
            if line.is_empty() {
                return Ok((!lines.is_empty()).then_some(Self { lines }));
            }
            lines.push(line);
        }
    }

    fn headers(&self) -> impl Iterator<Item = (String, String)> {
        self.lines[1..].iter().filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        })
    }

    fn body(&self, from: &mut impl Read) -> std::io::Result<Vec<u8>> {
        let mut headers = self.headers();
        assert!(
            headers.all(|(name, _)| name != "transfer-encoding"),
            "a message of unknown length: {:?}",
            self.lines
        );
        let length = self.headers().find(|(name, _)| name == "content-length");
        let mut body = vec![0; length.map_or(0, |(_, value)| value.parse().expect("a length"))];
        from.read_exact(&mut body)?;
        Ok(body)
    }

    fn write(&self, to: &mut impl Write) -> std::io::Result<()> {
        to.write_all(format!("{}\r\n\r\n", self.lines.join("\r\n")).as_bytes())
    }
}

/// One connection of a client; each request gets one to the server.
fn serve(shared: &Shared, client: &TcpStream) -> std::io::Result<()> {
    let mut input = BufReader::new(client);
    let mut output = client;
    while let Some(mut head) = Head::read(&mut input)? {
        let mut words = head.lines[0].split(' ').map(str::to_owned);
        let request = Request {
            method: words.next().unwrap_or_default(),
            target: words.next().unwrap_or_default(),
            headers: head.headers().collect(),
        };
        guard(&shared.requests).push(request.clone());
        let fault = guard(&shared.rule)(&request);
        if fault.is_some() {
            shared.faults.fetch_add(1, Ordering::SeqCst);
        }
        if request.header("expect").is_some() {
            output.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let mut body = head.body(&mut input)?;
        match &fault {
            Some(Fault::Answer(status, code)) => {
                let text = if request.method == "HEAD" {
                    String::new()
                } else {
                    format!("<Error><Code>{code}</Code></Error>")
                };
                let length = text.len();
                output
                    .write_all(format!("HTTP/1.1 {status} no\r\ncontent-length: {length}\r\n\r\n{text}").as_bytes())?;
                continue;
            }
            Some(Fault::FlipUpload) => flip(&mut body),
            Some(Fault::Header(name, value)) => {
                let line = head.lines[1..]
                    .iter_mut()
                    .find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")));
                *line.expect("the header is there") = format!("{name}: {value}");
            }
            _ => {}
        }
        let server = TcpStream::connect(("127.0.0.1", shared.server_port))?;
        head.write(&mut &server)?;
        if matches!(fault, Some(Fault::CutUpload)) {
            (&server).write_all(&body[..body.len() / 2])?;
            server.shutdown(Shutdown::Both)?;
            return client.shutdown(Shutdown::Both);
        }
        (&server).write_all(&body)?;
        answer(&request, fault.as_ref(), &server, output)?;
        if matches!(fault, Some(Fault::CutAnswer)) {
            return client.shutdown(Shutdown::Both);
        }
    }
    Ok(())
}

fn answer(request: &Request, fault: Option<&Fault>, server: &TcpStream, mut client: &TcpStream) -> std::io::Result<()> {
    let mut input = BufReader::new(server);
    let head = loop {
        let head = Head::read(&mut input)?.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        if !head.lines[0].starts_with("HTTP/1.1 100") {
            break head;
        }
    };
    let mut body = if request.method == "HEAD" {
        Vec::new()
    } else {
        head.body(&mut input)?
    };
    match fault {
        Some(Fault::FlipAnswer) => flip(&mut body),
        Some(Fault::CutAnswer) => body.truncate(body.len() / 2),
        _ => {}
    }
    head.write(&mut client)?;
    client.write_all(&body)
}

fn flip(body: &mut [u8]) {
    let middle = body.len() / 2;
    if let Some(byte) = body.get_mut(middle) {
        *byte ^= 1;
    }
}
