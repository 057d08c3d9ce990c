//! Chunks that are encrypted, in one repository with others and with such that are not.

use age::x25519::Identity;

use super::*;
use crate::api::reasons;
use crate::plan::Refusal;
use crate::store::encryption::{Identities, Recipients};

/// A repository for backups to one recipient, with and without the means to read them.
struct Encrypted {
    writing: Arc<Repository>,
    reading: Repository,
    recipient: String,
    identities: Arc<Identities>,
}

/// What age adds is more than the small chunks of these tests are.
const ENCRYPTED_SIZES: PackSizes = PackSizes {
    pack: 4096,
    small: 500,
    frames: 4,
};

fn encrypted(repository: &Repository) -> Encrypted {
    let repository = &Repository {
        pack_sizes: ENCRYPTED_SIZES,
        ..repository.plain()
    };
    let identity = Identity::generate();
    let recipient = identity.to_public().to_string();
    let recipients = Recipients::parse(&[&recipient]).unwrap();
    let identities = Arc::new(Identities::parse(&identity.to_string()).unwrap());
    Encrypted {
        writing: Arc::new(repository.encrypted(recipients.clone(), None)),
        reading: repository.encrypted(recipients, Some(Arc::clone(&identities))),
        recipient,
        identities,
    }
}

/// As `back_up`, with the recipient in the manifest.
async fn back_up_to(of: &Encrypted, snapshot: &str, numbers: std::ops::Range<u64>) -> (Vec<ChunkManifest>, u64) {
    let writer = Writer::begin(Arc::clone(&of.writing), options(snapshot)).await.unwrap();
    let chunks = put(&writer, numbers).await.unwrap();
    let mut content: Value = serde_json::from_slice(&manifest(snapshot, &chunks)).unwrap();
    content["formatVersion"] = json!(2);
    content["encryption"] = json!({"age": {"recipients": [of.recipient]}});
    writer.commit(content.to_string().into()).await.unwrap();
    writer.end().await.unwrap();
    (chunks, writer.statistics().new_chunks)
}

#[tokio::test(start_paused = true)]
async fn an_encrypted_chunk_is_read_by_its_identity_alone_small_and_large_ones() {
    let store = calm();
    let repository = repository(&store).await;
    let (of_one, of_other) = (encrypted(&repository), encrypted(&repository));
    let (chunks, _) = back_up_to(&of_one, "a", 0..10).await;
    for (number, chunk) in (0..10).zip(&chunks) {
        assert_eq!(of_one.reading.read_chunk(chunk).await.unwrap(), rows(number));
        let stored = store::read_all(&*store, &chunk.object, 1 << 20).await.unwrap();
        let offset = usize::try_from(chunk.offset).unwrap();
        assert!(stored[offset..].starts_with(b"age-encryption.org/v1\n"));
        for stranger in [&of_other.reading, &*repository] {
            let error = stranger.read_chunk(chunk).await.unwrap_err();
            assert!(matches!(error, RepositoryError::Damaged { .. }), "{error}");
        }
        let refusal = Refusal::from(of_one.writing.read_chunk(chunk).await.unwrap_err());
        assert_eq!(refusal.reason, reasons::IDENTITY_MISSING);
    }
    assert!(!keys(&store, "packs/").await.is_empty());
    assert!(!keys(&store, "chunks/").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn chunks_are_shared_among_backups_to_the_same_recipients_and_no_others() {
    let store = calm();
    let repository = repository(&store).await;
    let (of_one, of_other) = (encrypted(&repository), encrypted(&repository));
    let plain = back_up(&repository, "a", 0..4).await;
    let (first, new) = back_up_to(&of_one, "b", 0..4).await;
    assert_eq!(new, 4, "what is not encrypted is not taken for it");
    let (again, new) = back_up_to(&of_one, "c", 0..4).await;
    assert_eq!((new, &again), (0, &first));
    let (others, new) = back_up_to(&of_other, "d", 0..4).await;
    assert_eq!(new, 4, "what others read is not taken for it");
    for (at, number) in (0..4).enumerate() {
        assert_eq!(repository.read_chunk(&plain[at]).await.unwrap(), rows(number));
        assert_eq!(of_other.reading.read_chunk(&others[at]).await.unwrap(), rows(number));
        let names: std::collections::BTreeSet<_> = [&plain, &first, &others].map(|chunks| &chunks[at].name).into();
        assert_eq!(names.len(), 3);
    }
    // A prune knows all of them, with no identity at all.
    delete_snapshot(&store, "d").await;
    repository.prune(&prune_now()).await.unwrap();
    assert!(of_other.reading.read_chunk(&others[1]).await.is_err());
    assert_eq!(of_one.reading.read_chunk(&again[1]).await.unwrap(), rows(1));
    assert_eq!(repository.read_chunk(&plain[1]).await.unwrap(), rows(1));
}

#[tokio::test(start_paused = true)]
async fn a_changed_truncated_or_swapped_age_file_is_found_also_where_the_manifest_was_changed_with_it() {
    let store = calm();
    let of = encrypted(&*repository(&store).await);
    let (chunks, _) = back_up_to(&of, "a", 0..4).await;
    let stored = store::read_all(&*store, &chunks[1].object, 1 << 20).await.unwrap();
    let other = store::read_all(&*store, &chunks[3].object, 1 << 20).await.unwrap();
    // As many bytes, to the same recipient.
    let mut one_digit = rows(1);
    one_digit[2] = b'F';
    let frame = frame::Compressors::new(1)
        .compress(&one_digit, usize::MAX)
        .unwrap()
        .unwrap();
    let one_digit = of.writing.recipients().unwrap().encrypt(&frame).unwrap();
    let mut flipped = stored.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let shorter = stored.slice(..stored.len() - 20);
    for (content, word) in [
        (Bytes::from(flipped), "was changed"),
        (shorter, "was changed"),
        (stored.slice(..100), "ends before"),
        (other, "the frame holds"),
        (one_digit.into(), "not those that its name stands for"),
    ] {
        put_object(&store, &chunks[1].object, content.clone()).await;
        let edited = ChunkManifest {
            stored_bytes: content.len() as u64,
            sha256: hex::encode(<sha2::Sha256 as sha2::Digest>::digest(&content)),
            ..chunks[1].clone()
        };
        let error = of.reading.read_chunk(&edited).await.unwrap_err().to_string();
        assert!(error.contains(word) && error.contains(&chunks[1].object), "{error}");
        let error = of.reading.read_chunk(&chunks[1]).await.unwrap_err();
        assert!(matches!(error, RepositoryError::Damaged { .. }), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_the_deepest_check_needs_the_identities_and_it_needs_all_of_them() {
    let store = calm();
    let repository = repository(&store).await;
    let (of_one, of_other) = (encrypted(&repository), encrypted(&repository));
    back_up(&repository, "a", 0..2).await;
    let (chunks, _) = back_up_to(&of_one, "b", 0..2).await;
    for level in [CheckLevel::Sizes, CheckLevel::Hashes] {
        assert_eq!(check(&store, level, None).await.unwrap().damages, []);
    }
    let checked = async |identities| check(&store, CheckLevel::Rows, identities).await;
    assert_eq!(checked(Some(Arc::clone(&of_one.identities))).await.unwrap().damages, []);
    for (identities, reason) in [
        (None, reasons::IDENTITY_MISSING),
        (Some(of_other.identities), reasons::IDENTITY_WRONG),
    ] {
        let refusal = Refusal::from(checked(identities).await.unwrap_err());
        assert_eq!(
            (refusal.reason.as_str(), refusal.object.as_deref()),
            (reason, Some("b"))
        );
        assert!(refusal.message.contains(&of_one.recipient), "{refusal}");
    }
    // A file that was made anew for the same recipient, with other rows.
    let wrong = of_one.writing.recipients().unwrap().encrypt(b"something else").unwrap();
    put_object(&store, &chunks[1].object, wrong).await;
    assert_eq!(checked(Some(of_one.identities)).await.unwrap().damages.len(), 1);
}

/// Bytes that do not compress, or one quarter of them and zeros.
fn stream_of(seed: u64, length: usize, compresses: bool) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let random = if compresses { length / 4 } else { length };
    blake3::Hasher::new()
        .update(&seed.to_be_bytes())
        .finalize_xof()
        .fill(&mut bytes[..random]);
    bytes
}

#[tokio::test(start_paused = true)]
async fn many_workers_end_whether_their_rows_compress_or_not_and_each_chunk_is_read_as_it_was_put() {
    let store = calm();
    let of = encrypted(&*repository(&store).await);
    let plain = repository(&store).await;
    // With its age file each that does not compress takes more than its share of the bytes in flight; of the large
    // ones less than that is expected.
    for (snapshot, length, writing, reading) in [
        ("a", 2 << 20, &of.writing, &of.reading),
        ("b", 6 << 20, &of.writing, &of.reading),
        ("c", 6 << 20, &plain, &plain),
    ] {
        let writer = Arc::new(Writer::begin(Arc::clone(writing), options(snapshot)).await.unwrap());
        let puts = (0..8).map(|seed| {
            let writer = Arc::clone(&writer);
            let stream = stream_of(seed, length, seed % 3 == 0);
            tokio::spawn(async move { writer.put(stream.clone()).await.map(|(name, _)| (name, stream)) })
        });
        let put = futures::future::join_all(puts).await;
        writer.flush().await.unwrap();
        assert_eq!(writer.statistics().new_chunks, 8);
        for put in put {
            let (name, stream) = put.unwrap().unwrap();
            let chunk = described(&writer, &name, &stream);
            assert!(reading.read_chunk(&chunk).await.unwrap() == stream, "{chunk:?}");
        }
    }
}
