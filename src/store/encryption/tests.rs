//! Tests of the encryption on bytes in memory and on a folder.

use futures::TryStreamExt as _;
use secrecy::{ExposeSecret as _, SecretString};

use super::*;
use crate::store::folder::FolderStore;
use crate::store::manifest::ObjectKind;

/// Keys of their own, as `age-keygen` makes them.
fn key_pair() -> (String, SecretString) {
    let identity = age::x25519::Identity::generate();
    (identity.to_public().to_string(), identity.to_string())
}

fn identities(texts: &[&SecretString]) -> Arc<Identities> {
    let lines: Vec<_> = texts.iter().map(|text| text.expose_secret()).collect();
    let file = format!("# created: today\n\n{}\n", lines.join("\n"));
    Arc::new(Identities::parse(&SecretString::from(file)).unwrap())
}

/// Lengths around the blocks of age.
const LENGTHS: [usize; 7] = [0, 1, 65_535, 65_536, 65_537, 131_072, 200_000];

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

#[test]
fn every_recipient_and_nobody_else_reads_what_was_encrypted() {
    let (one, of_one) = key_pair();
    let (other, of_other) = key_pair();
    let (_, stranger) = key_pair();
    let recipients = Recipients::parse(&[&one, &other]).unwrap();
    for length in LENGTHS {
        let file = recipients.encrypt(&content(length)).unwrap();
        assert!(file.len() as u64 <= recipients.bound(length as u64), "{length}");
        for key in [&of_one, &of_other] {
            assert_eq!(identities(&[&stranger, key]).decrypt(&file).unwrap(), content(length));
        }
        assert_eq!(identities(&[&stranger]).decrypt(&file), Err(Unreadable::NoIdentityFits));
    }
    assert!(identities(&[&of_one]).fit(&recipients.texts()));
    assert!(!identities(&[&stranger]).fit(&recipients.texts()));
}

#[test]
fn no_header_is_longer_than_what_is_reckoned_with() {
    let keys: Vec<_> = (0..MOST_RECIPIENTS).map(|_| key_pair().0).collect();
    for count in [1, 2, MOST_RECIPIENTS] {
        let recipients = Recipients::parse(&keys[..count]).unwrap();
        // A part of the header is made up at random.
        for _ in 0..20 {
            assert!(recipients.encrypt(b"").unwrap().len() as u64 <= recipients.bound(0));
        }
    }
}

#[test]
fn truncated_changed_and_lengthened_files_are_found() {
    let (recipient, key) = key_pair();
    let recipients = Recipients::parse(&[recipient]).unwrap();
    let identities = identities(&[&key]);
    for length in [0, 10, 65_536, 100_000] {
        let file = recipients.encrypt(&content(length)).unwrap();
        for cut in (0..file.len()).step_by(file.len() / 50 + 1).chain([file.len() - 1]) {
            let refused = identities.decrypt(&file[..cut]).unwrap_err();
            assert!(
                matches!(refused, Unreadable::Damaged(_)),
                "{cut} of {} bytes",
                file.len()
            );
        }
        // A stanza that means nothing may be in the header: the MAC covers that too.
        for at in (0..file.len()).step_by(file.len() / 50 + 1).chain([file.len() - 1]) {
            let mut flipped = file.clone();
            flipped[at] ^= 1;
            assert!(identities.decrypt(&flipped).is_err(), "byte {at} of {}", file.len());
        }
        assert!(identities.decrypt(&[&file[..], b"x"].concat()).is_err());
        assert!(identities.decrypt(&[&file[..], &file].concat()).is_err());
    }
    // One whole block of two: the end of the file is missing.
    let file = recipients.encrypt(&content(131_072)).unwrap();
    assert!(identities.decrypt(&file[..file.len() - 65_536 - 16]).is_err());
}

#[test]
fn names_follow_from_the_set_of_recipients_and_from_nothing_else() {
    let keys: Vec<_> = (0..3).map(|_| key_pair().0).collect();
    let name_key = |texts: &[&String]| Recipients::parse(texts).unwrap().name_key(&[7; 32]);
    let all = name_key(&[&keys[0], &keys[1], &keys[2]]);
    assert_eq!(name_key(&[&keys[2], &keys[0], &keys[1], &keys[0]]), all);
    assert_ne!(name_key(&[&keys[0], &keys[1]]), all);
    assert_ne!(Recipients::parse(&keys).unwrap().name_key(&[8; 32]), all);
    assert_ne!(all, [7; 32]);
}

/// The expected key is what another implementation of BLAKE3 made of the words of `docs/repository-format.md`.
#[test]
fn the_key_of_names_is_derived_as_the_documents_say() {
    let recipients = [
        "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj",
        "age1cy0su9fwf3gf9mw868g5yut09p6nytfmmnktexz2ya5uqg9vl9sss4euqm",
    ];
    let key = Recipients::parse(&recipients).unwrap().name_key(&[7; 32]);
    let mut material = vec![7; 32];
    for text in [recipients[1], recipients[0]] {
        material.extend_from_slice(text.as_bytes());
        material.push(b'\n');
    }
    assert_eq!(
        key,
        blake3::derive_key("pgrescue 2026-01 names of encrypted chunks", &material)
    );
    assert_eq!(
        hex::encode(key),
        "02afa53904d67b465ead58f989c0b3c4a9de512bc3bda6a53085dd808a194967"
    );
}

#[test]
fn a_recipient_that_is_none_is_refused_without_its_text() {
    let (recipient, key) = key_pair();
    for text in [
        "",
        "age1",
        "ssh-ed25519 AAAA",
        key.expose_secret(),
        &format!("{recipient}x"),
    ] {
        let error = Recipients::parse(&[&recipient, text]).unwrap_err().to_string();
        assert_eq!(error, "recipient 2 is no X25519 public key of age");
    }
    let none: [&str; 0] = [];
    assert!(matches!(
        Recipients::parse(&none),
        Err(EncryptionError::Count { found: 0 })
    ));
}

#[test]
fn what_is_no_identity_file_is_refused_without_a_word_of_it() {
    let (recipient, key) = key_pair();
    let key = key.expose_secret();
    let refused = |text: String| Identities::parse(&SecretString::from(text)).unwrap_err();
    assert_eq!(refused(String::new()), IdentityError::Empty);
    assert_eq!(refused("# only a comment\n\n".into()), IdentityError::Empty);
    assert_eq!(refused(recipient), IdentityError::PublicKey { line: 1 });
    assert_eq!(refused(format!("{key}\nhunter2\n")), IdentityError::Line { line: 2 });
    assert_eq!(
        refused(format!("#\n{}", &key[..key.len() - 1])),
        IdentityError::Line { line: 2 }
    );
    assert_eq!(
        refused("age-encryption.org/v1\n-> scrypt a 18\n".into()),
        IdentityError::Encrypted
    );
    assert!(!refused("hunter2".into()).to_string().contains("hunter2"));
    assert!(!format!("{:?}", identities(&[&SecretString::from(key.to_owned())])).contains("SECRET"));
}

/// Stores the content, in pieces, as one object.
async fn stored(store: &dyn Store, recipients: Option<&Recipients>, content: &[u8]) -> ObjectManifest {
    let mut upload = create(store, "a/archive.dump", recipients).await.unwrap();
    for piece in content.chunks(30_000) {
        upload.write(bytes::Bytes::copy_from_slice(piece)).await.unwrap();
    }
    ObjectManifest::new(upload.finish().await.unwrap(), ObjectKind::Archive, None)
}

async fn read(
    store: &dyn Store,
    object: &ObjectManifest,
    identities: Option<&Arc<Identities>>,
) -> Result<Vec<u8>, StoreError> {
    let pieces: Vec<_> = super::content(store, object, identities).await?.try_collect().await?;
    Ok(pieces.concat())
}

#[tokio::test]
async fn an_object_is_encrypted_while_it_is_sent_and_decrypted_while_it_arrives() {
    let folder = tempfile::tempdir().unwrap();
    let store = FolderStore::new(folder.path());
    let (recipient, key) = key_pair();
    let recipients = Recipients::parse(&[recipient]).unwrap();
    for length in LENGTHS {
        let object = stored(&store, Some(&recipients), &content(length)).await;
        assert_eq!(object.key, "a/archive.dump.age");
        let file = std::fs::read(folder.path().join(&object.key)).unwrap();
        assert_eq!(file.len() as u64, object.size);
        assert_eq!(identities(&[&key]).decrypt(&file).unwrap(), content(length));
        assert_eq!(
            read(&store, &object, Some(&identities(&[&key]))).await.unwrap(),
            content(length)
        );
        assert_eq!(read(&store, &object, None).await.unwrap(), file);
    }
    let plain = stored(&store, None, &content(10)).await;
    assert_eq!(plain.key, "a/archive.dump");
    assert_eq!(read(&store, &plain, None).await.unwrap(), content(10));
}

#[tokio::test]
async fn an_object_that_was_changed_is_named_and_one_for_others_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let store = FolderStore::new(folder.path());
    let (recipient, key) = key_pair();
    let recipients = Recipients::parse(&[recipient]).unwrap();
    let object = stored(&store, Some(&recipients), &content(200_000)).await;
    let (path, ours) = (folder.path().join(&object.key), identities(&[&key]));
    let stranger = identities(&[&key_pair().1]);
    let error = read(&store, &object, Some(&stranger)).await.unwrap_err();
    assert!(matches!(error, StoreError::IdentityWrong { .. }), "{error}");
    let whole = std::fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[100_000] ^= 1;
    for changed in [
        &whole[..whole.len() - 1],
        &whole[..100],
        b"",
        &vec![b'x'; 100_000],
        &flipped,
    ] {
        std::fs::write(&path, changed).unwrap();
        // Also where somebody has changed the manifest with it.
        let edited = ObjectManifest {
            size: changed.len() as u64,
            sha256: hex::encode(<sha2::Sha256 as sha2::Digest>::digest(changed)),
            ..object.clone()
        };
        for object in [&object, &edited] {
            let error = read(&store, object, Some(&ours)).await.unwrap_err();
            assert!(matches!(error, StoreError::ObjectChanged { .. }), "{error}");
            assert!(error.to_string().contains("archive.dump.age"), "{error}");
        }
    }
}

#[tokio::test]
async fn an_encrypted_upload_that_is_aborted_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = FolderStore::new(folder.path());
    let recipients = Recipients::parse(&[key_pair().0]).unwrap();
    let mut upload = create(&store, "a/b", Some(&recipients)).await.unwrap();
    upload.write(content(100_000).into()).await.unwrap();
    upload.abort().await.unwrap();
    assert_eq!(store.list("").await.unwrap(), []);
}
