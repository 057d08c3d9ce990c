//! The answer to a request is lost after the store has done it: the repeated request must not be taken for a clash.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pgrescue::store::{self, StoreError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{BUCKET, PART, PREFIX, content, open, read, server, unfinished_uploads};

/// Passes connections on, but cuts the first one that asked for a certain request as soon as the answer comes.
pub struct Relay {
    pub address: SocketAddr,
    lost: Arc<AtomicUsize>,
}

impl Relay {
    pub async fn start(host: &str, server_port: u16, request: Option<&'static str>) -> Self {
        let listener = TcpListener::bind((host, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("it listens");
        let lost = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&lost);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass_on(client, server_port, request, Arc::clone(&counter)));
            }
        });
        Self { address, lost }
    }
}

async fn pass_on(mut client: TcpStream, server_port: u16, request: Option<&'static str>, lost: Arc<AtomicUsize>) {
    let mut server = TcpStream::connect(("127.0.0.1", server_port))
        .await
        .expect("the server listens");
    let (mut from_client, mut from_server) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut asked = false;
    loop {
        tokio::select! {
            Ok(length) = client.read(&mut from_client) => {
                let sent = &from_client[..length];
                asked |= request.is_some_and(|it| sent.windows(it.len()).any(|window| window == it.as_bytes()));
                if length == 0 || server.write_all(sent).await.is_err() {
                    return;
                }
            }
            Ok(length) = server.read(&mut from_server) => {
                let answer = &from_server[..length];
                if asked && !answer.starts_with(b"HTTP/1.1 100") && lost.swap(1, Ordering::SeqCst) == 0 {
                    return;
                }
                if length == 0 || client.write_all(answer).await.is_err() {
                    return;
                }
            }
            else => return,
        }
    }
}

#[tokio::test]
async fn a_new_object_whose_answer_was_lost_is_there_once_and_ours() {
    let server = server();
    let proxy = Relay::start(
        "127.0.0.1",
        server.port,
        Some("PUT /backups/shop/nightly/manifest.json"),
    )
    .await;
    let store = open(&format!("http://{}", proxy.address)).await;
    store::put_new(&*store, "manifest.json", content(1000)).await.unwrap();
    assert_eq!(proxy.lost.load(Ordering::SeqCst), 1);
    assert!(server.object(BUCKET, &format!("{PREFIX}/manifest.json")) == content(1000));
    let error = store::put_new(&*store, "manifest.json", content(1001))
        .await
        .unwrap_err();
    assert!(matches!(error, StoreError::ObjectExists { .. }), "{error}");
}

#[tokio::test]
async fn an_upload_whose_completion_was_lost_is_complete() {
    let server = server();
    let proxy = Relay::start(
        "127.0.0.1",
        server.port,
        Some("POST /backups/shop/nightly/archive?uploadId="),
    )
    .await;
    let store = open(&format!("http://{}", proxy.address)).await;
    let stored = store::put(&*store, "archive", content(2 * PART + 1)).await.unwrap();
    assert_eq!(proxy.lost.load(Ordering::SeqCst), 1);
    assert_eq!(stored.size, 2 * PART as u64 + 1);
    assert!(read(&*store, "archive").await.unwrap() == content(2 * PART + 1));
    assert_eq!(unfinished_uploads(&server).await, 0);
}
