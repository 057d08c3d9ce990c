//! Sessions with servers that say what a real one rarely says, or never.

use std::time::Duration;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::net::TcpListener;
use tokio_postgres::Config;
use tokio_postgres::config::{SslMode, SslNegotiation};
use tokio_postgres::error::SqlState;

use super::cancel::Route;
use super::lend::{Lender, WithoutTls};
use super::*;

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

fn notice() -> Vec<u8> {
    message(b'N', b"SNOTICE\0C00000\0Mlook here\0\0")
}

fn error(code: &str) -> Vec<u8> {
    message(b'E', format!("SERROR\0C{code}\0Mno\0\0").as_bytes())
}

fn login() -> Vec<u8> {
    [
        message(b'R', &[0; 4]),
        message(b'S', b"server_version\x0018.1\0"),
        message(b'K', &[0, 0, 0, 7, 0, 0, 0, 9]),
        ready(),
    ]
    .concat()
}

/// A server that answers each message of the frontend with the next of `answers`, beginning with the login. Behind the
/// last it closes the connection. Returns the rows that came.
async fn serve(mut stream: DuplexStream, answers: Vec<Vec<u8>>) -> Vec<u8> {
    let mut answers = answers.into_iter().peekable();
    let length = stream.read_u32().await.unwrap();
    stream.read_exact(&mut vec![0; length as usize - 4]).await.unwrap();
    stream.write_all(&answers.next().unwrap()).await.unwrap();
    let mut copied = Vec::new();
    while let (Ok(tag), Ok(length)) = (stream.read_u8().await, stream.read_u32().await) {
        let mut body = vec![0; length as usize - 4];
        if stream.read_exact(&mut body).await.is_err() {
            break;
        }
        if tag == b'd' {
            copied.extend(body);
        }
        let sent = stream.write_all(&answers.next().unwrap()).await;
        if sent.is_err() || answers.peek().is_none() {
            break;
        }
    }
    copied
}

/// A session with such a server; each side has room for so many bytes that the other has not read yet.
async fn session(room: usize, answers: Vec<Vec<u8>>) -> (WireSession, tokio::task::JoinHandle<Vec<u8>>) {
    let (ours, theirs) = tokio::io::duplex(room);
    let server = tokio::spawn(serve(theirs, answers));
    let lender = Lender::new(WithoutTls);
    let mut config = Config::new();
    config
        .user("u")
        .ssl_mode(SslMode::Require)
        .ssl_negotiation(SslNegotiation::Direct);
    let (client, _) = config.connect_raw(ours, lender.clone()).await.unwrap();
    let cancel = CancelToken {
        endpoint: "a test".into(),
        route: Route::Tcp(([127, 0, 0, 1], 1).into()),
        token: client.cancel_token(),
    };
    (WireSession::new(lender.take_back().unwrap(), cancel), server)
}

async fn in_time<T>(doing: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), doing)
        .await
        .expect("it hangs")
}

#[tokio::test]
async fn cancelling_ends_when_the_server_has_passed_it_on_and_not_before() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (session, _) = session(1 << 16, vec![login(), Vec::new()]).await;
    let mut token = session.cancel_token();
    token.route = Route::Tcp(listener.local_addr().unwrap());
    let mut cancelling = tokio::spawn(async move { token.cancel().await });
    let (mut server, _) = in_time(listener.accept()).await.unwrap();
    in_time(server.read_exact(&mut [0; 16])).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(200), &mut cancelling).await;
    assert!(waited.is_err(), "{waited:?}");
    drop(server);
    in_time(cancelling).await.unwrap().unwrap();
}

#[tokio::test]
async fn what_follows_the_login_at_once_is_not_lost() {
    let farewell = [login(), notice(), error("57P01")].concat();
    let (mut session, _) = session(1 << 16, vec![farewell, Vec::new()]).await;
    let error = in_time(session.execute("SELECT 1")).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::ADMIN_SHUTDOWN), "{error}");
}

#[tokio::test]
async fn notices_and_changed_parameters_may_come_at_any_time() {
    let aside = || {
        [
            notice(),
            message(b'S', b"TimeZone\0UTC\0"),
            message(b'A', &[0, 0, 0, 1, b'c', 0, 0]),
        ]
        .concat()
    };
    let answer = [
        aside(),
        message(b'H', &[0, 0, 1, 0, 0]),
        aside(),
        message(b'd', b"1\n"),
        aside(),
        message(b'd', b"2\n"),
        message(b'c', &[]),
        aside(),
        message(b'C', b"COPY 2\0"),
        aside(),
        ready(),
    ]
    .concat();
    let (mut session, _) = session(16, vec![login(), answer, ready()]).await;
    let mut copy = in_time(session.copy_out("COPY t TO STDOUT")).await.unwrap();
    let (mut rows, mut total) = (Vec::new(), 0);
    loop {
        let limit = rows.len() + 1;
        let read = in_time(copy.read_rows(&mut rows, limit)).await.unwrap();
        total += read.rows;
        if read.done {
            break;
        }
    }
    assert_eq!((total, rows.as_slice()), (2, b"1\n2\n".as_slice()));
    in_time(session.execute("SELECT 1")).await.unwrap();
}

#[tokio::test]
async fn rows_that_the_server_does_not_count_are_an_error() {
    let answer = [
        message(b'H', &[0, 0, 1, 0, 0]),
        message(b'd', b"1\n"),
        message(b'c', &[]),
        message(b'C', b"COPY 2\0"),
        ready(),
    ]
    .concat();
    let (mut session, _) = session(1 << 16, vec![login(), answer]).await;
    let mut copy = in_time(session.copy_out("COPY t TO STDOUT")).await.unwrap();
    let error = in_time(copy.read_rows(&mut Vec::new(), 99)).await.unwrap_err();
    assert!(
        error.to_string().contains("sent 1 rows and says that it sent 2"),
        "{error}"
    );
    let again = in_time(copy.read_rows(&mut Vec::new(), 99)).await.unwrap_err();
    assert!(matches!(again, WireError::Unfinished), "{again}");
}

#[tokio::test]
async fn a_server_that_waits_for_its_notices_to_be_read_is_fed_all_the_same() {
    // Both sides have room for less than they send, as with a trigger that raises a notice for every row.
    let flood: Vec<u8> = std::iter::repeat_with(notice).take(4000).flatten().collect();
    let huge = message(b'N', &[b"M", vec![b'x'; 700_000].as_slice(), b"\0\0"].concat());
    let answers = vec![
        login(),
        message(b'G', &[0, 0, 1, 0, 0]),
        [flood.clone(), huge].concat(),
        flood,
        Vec::new(),
        Vec::new(),
        [message(b'C', b"COPY 3\0"), ready()].concat(),
    ];
    let (mut session, server) = session(1000, answers).await;
    let mut copy = in_time(session.copy_in("COPY t FROM STDIN")).await.unwrap();
    let rows: Vec<u8> = (0..250_000_u32)
        .flat_map(u32::to_be_bytes)
        .take(64 * 1024 * 4 - 5 * 5)
        .collect();
    for part in rows.chunks(70_001) {
        in_time(copy.write(part)).await.unwrap();
    }
    assert_eq!(in_time(copy.finish()).await.unwrap(), 3);
    drop(session);
    assert!(in_time(server).await.unwrap() == rows);
}

#[tokio::test]
async fn an_error_in_the_middle_of_a_load_is_found_before_its_end() {
    let answers = vec![
        login(),
        message(b'G', &[0, 0, 1, 0, 0]),
        [notice(), error("22P04"), ready()].concat(),
        Vec::new(),
        Vec::new(),
        Vec::new(),
        Vec::new(),
        Vec::new(),
        Vec::new(),
        Vec::new(),
    ];
    let (mut session, _) = session(1 << 12, answers).await;
    let mut copy = in_time(session.copy_in("COPY t FROM STDIN")).await.unwrap();
    let error = in_time(async {
        loop {
            if let Err(error) = copy.write(&[b'x'; 10_000]).await {
                return error;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(error.code(), Some(&SqlState::BAD_COPY_FILE_FORMAT), "{error}");
    assert!(matches!(in_time(copy.write(b"x")).await, Err(WireError::Unfinished)));
    in_time(copy.fail("no more")).await.unwrap();
    assert!(session.is_idle());
}

#[tokio::test]
async fn a_session_that_was_left_in_the_middle_takes_no_statement() {
    let answer = [message(b'H', &[0, 0, 1, 0, 0]), message(b'd', b"1\n")].concat();
    let (mut session, _) = session(1 << 16, vec![login(), answer]).await;
    let _ = in_time(session.copy_out("COPY t TO STDOUT")).await.unwrap();
    assert!(matches!(
        in_time(session.execute("SELECT 1")).await,
        Err(WireError::Unfinished)
    ));
}

#[tokio::test]
async fn messages_of_impossible_lengths_are_refused() {
    for length in [0_u32, 3, 0x8000_0000, 0xffff_ffff, 0x7000_0000] {
        let answer = [&[b'D'][..], &length.to_be_bytes()].concat();
        let (mut session, _) = session(1 << 16, vec![login(), answer]).await;
        let error = in_time(session.query("SELECT 1")).await.unwrap_err();
        assert!(matches!(error, WireError::Violation(_)), "{length}: {error}");
    }
}

/// Messages that fit together badly.
fn messages() -> impl Strategy<Value = Vec<u8>> {
    let body = || prop::collection::vec(any::<u8>(), 0..12);
    let tags = prop::sample::select(b"dcCDTEGHINSAZKR1s\0".to_vec());
    let known = prop::sample::select(vec![
        message(b'H', &[0, 0, 1, 0, 0]),
        message(b'H', &[1, 0, 1, 0, 1]),
        message(b'G', &[0, 0, 1, 0, 0]),
        message(b'd', b"1\n"),
        message(b'c', &[]),
        message(b'C', b"COPY 1\0"),
        message(b'D', &[0, 1, 0, 0, 0, 1, b'x']),
        message(b'D', &[0, 1, 0xff, 0xff, 0xff, 0xff]),
        error("42601"),
        ready(),
    ]);
    let one = prop_oneof![
        3 => known,
        1 => (tags, body()).prop_map(|(tag, body)| message(tag, &body)),
        1 => body(),
    ];
    prop::collection::vec(one, 0..12).prop_map(|messages| messages.concat())
}

proptest! {
    #[test]
    fn no_answer_makes_a_session_panic_or_hang(answer in messages(), what in 0..4_u8, room in 1..40_usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let begun = (what == 3).then(|| message(b'G', &[0, 0, 1, 0, 0]));
            let answers = [Some(login()), begun, Some(answer)].into_iter().flatten().collect();
            let (mut session, server) = session(room, answers).await;
            let session = &mut session;
            in_time(async {
                match what {
                    0 => drop(session.execute("x").await),
                    1 => drop(session.query("x").await),
                    2 => if let Ok(mut copy) = session.copy_out("x").await {
                        while copy.read_rows(&mut Vec::new(), 1).await.is_ok_and(|read| !read.done) {}
                    },
                    _ => if let Ok(mut copy) = session.copy_in("x").await
                        && copy.write(&vec![0; 200_000]).await.is_ok()
                    {
                        drop(copy.finish().await);
                    },
                }
            })
            .await;
            server.abort();
        });
    }
}
