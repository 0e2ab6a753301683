//! Against a real registry, Debian's `docker-registry`: what `wkg` pushed is pulled, and nothing else.

use oci_client::{
    Reference,
    client::{Config, ImageLayer},
    manifest::{OciImageManifest, OciManifest},
    secrets::RegistryAuth,
};
use std::sync::{Arc, Mutex};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};
use tsunami_provenance::{
    Asker, Credentials, OciError, Registries, Registry, sha256_hex,
    testing::{self, DockerRegistry},
};

const MAX: usize = 1 << 20;

fn registries(registry: &DockerRegistry) -> Registries {
    Registries::new(vec![Registry {
        host: registry.host(),
        plain_http: true,
        credentials: None,
    }])
}

#[tokio::test]
async fn a_component_comes_by_its_digest_whatever_becomes_of_its_tag() {
    let registry = DockerRegistry::start().await;
    let (first, second) = (testing::component(b"one"), testing::component(b"two"));
    registry.push("acme/slack:1.0.0", first.clone()).await;
    let from = registries(&registry);
    let by_tag = format!("{}/acme/slack:1.0.0", registry.host());
    let pulled = from.pull(&by_tag, MAX, Asker::Tenant).await.unwrap();
    assert_eq!(pulled.component, first);
    assert!(
        pulled.reference.contains("/acme/slack@sha256:"),
        "{}",
        pulled.reference
    );
    // Somebody moves the tag.
    registry.push("acme/slack:1.0.0", second.clone()).await;
    assert_eq!(
        from.pull(&by_tag, MAX, Asker::Tenant)
            .await
            .unwrap()
            .component,
        second
    );
    let again = from
        .pull(&pulled.reference, MAX, Asker::Tenant)
        .await
        .unwrap();
    assert_eq!(again.component, first);
    assert_eq!(again.reference, pulled.reference);
}

#[tokio::test]
async fn a_component_that_is_too_large_is_refused_by_what_is_stated_and_by_what_comes() {
    let registry = DockerRegistry::start().await;
    let large = testing::component(&vec![7; 200_000]);
    registry.push("acme/large:1.0.0", large.clone()).await;
    let from = registries(&registry);
    let reference = format!("{}/acme/large:1.0.0", registry.host());
    let error = from
        .pull(&reference, 100_000, Asker::Tenant)
        .await
        .unwrap_err();
    let OciError::TooLarge { bytes, max } = error else {
        panic!("{error}")
    };
    assert_eq!((bytes, max), (large.len() as u64, 100_000));
    // A manifest that says less.
    let lie = push_manifest(&registry, "acme/large:lie", &large, |manifest| {
        manifest.layers[0].size = 10
    })
    .await;
    let error = from.pull(&lie, 100_000, Asker::Tenant).await.unwrap_err();
    assert!(
        matches!(error, OciError::TooLarge { max: 100_000, .. }),
        "{error}"
    );
    assert_eq!(
        from.pull(&lie, MAX, Asker::Tenant).await.unwrap().component,
        large
    );
}

#[tokio::test]
async fn only_the_layout_that_wkg_writes_is_taken() {
    let registry = DockerRegistry::start().await;
    let component = testing::component(b"x");
    let from = registries(&registry);
    type Change = fn(&mut OciImageManifest);
    let changes: [(&str, Change); 4] = [
        ("two layers", |manifest| {
            manifest.layers.push(manifest.layers[0].clone())
        }),
        ("another layer", |manifest| {
            manifest.layers[0].media_type = "application/octet-stream".into()
        }),
        ("less than nothing", |manifest| manifest.layers[0].size = -5),
        ("a container", |manifest| {
            manifest.config.media_type = "application/vnd.oci.image.config.v1+json".into()
        }),
    ];
    for (what, change) in changes {
        let reference = push_manifest(&registry, "acme/strange:1", &component, change).await;
        let error = from.pull(&reference, MAX, Asker::Tenant).await.unwrap_err();
        assert!(matches!(error, OciError::Layout(..)), "{what}: {error}");
    }
    let nothing = format!("{}/acme/strange:none", registry.host());
    let error = from.pull(&nothing, MAX, Asker::Tenant).await.unwrap_err();
    assert!(matches!(error, OciError::NotFound(_)), "{error}");
    let error = from
        .pull("no reference at all", MAX, Asker::Tenant)
        .await
        .unwrap_err();
    assert!(matches!(error, OciError::NotAReference(_)), "{error}");
}

#[tokio::test]
async fn a_manifest_without_an_end_is_read_to_its_limit() {
    let registry = DockerRegistry::start().await;
    let component = testing::component(b"x");
    let reference = push_manifest(&registry, "acme/wordy:1", &component, |manifest| {
        let annotations = manifest.annotations.get_or_insert_default();
        annotations.insert("words".into(), "x".repeat(100_000));
    })
    .await;
    let error = registries(&registry)
        .pull(&reference, MAX, Asker::Tenant)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("larger than 65536 bytes"),
        "{error}"
    );
}

#[tokio::test]
async fn a_registry_that_is_not_named_is_not_asked() {
    let registry = DockerRegistry::start().await;
    registry
        .push("acme/slack:1.0.0", testing::component(b"x"))
        .await;
    let reference = format!("{}/acme/slack:1.0.0", registry.host());
    for others in [
        vec![],
        vec![Registry {
            host: "registry.example".into(),
            plain_http: false,
            credentials: None,
        }],
    ] {
        let error = Registries::new(others)
            .pull(&reference, MAX, Asker::Tenant)
            .await
            .unwrap_err();
        assert!(matches!(error, OciError::NotAllowed { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_registry_that_sends_other_bytes_is_found_out() {
    let registry = DockerRegistry::start().await;
    let component = testing::component(b"honest");
    registry.push("acme/slack:1.0.0", component.clone()).await;
    let reference = format!("{}/acme/slack:1.0.0", registry.host());
    let from = registries(&registry);
    from.pull(&reference, MAX, Asker::Tenant).await.unwrap();
    let digest = sha256_hex(&component);
    let stored = registry.blob(&digest);
    std::fs::write(&stored, testing::component(b"forged")).unwrap();
    let error = from.pull(&reference, MAX, Asker::Tenant).await.unwrap_err();
    assert!(error.to_string().contains(&digest), "{error}");
}

#[tokio::test]
async fn a_registry_that_is_away_is_said_to_be() {
    let registry = DockerRegistry::start().await;
    let reference = format!("{}/acme/slack:1.0.0", registry.host());
    let from = registries(&registry);
    drop(registry);
    let error = from.pull(&reference, MAX, Asker::Tenant).await.unwrap_err();
    assert!(matches!(error, OciError::Away { .. }), "{error}");
}

/// An answer: what stands before the length of its body, and the body.
type Said = (String, String);

fn nothing() -> Said {
    ("404 Not Found\r\n".into(), String::new())
}

/// Answers so, head by head and over again, and keeps what it was asked: the lines of each request, in lower case.
async fn answering(answers: Vec<Said>) -> (String, Arc<Mutex<Vec<String>>>, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let heard = asked.clone();
    let serving = tokio::spawn(async move {
        for (head, body) in answers.iter().cycle() {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                if stream.read_buf(&mut request).await.unwrap() == 0 {
                    break;
                }
            }
            let request = String::from_utf8_lossy(&request).to_lowercase();
            heard.lock().unwrap().push(request);
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {head}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
            );
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (host, asked, serving)
}

/// A registry with whose operator's password those of `shared/plugins` may be pulled.
fn with_password(host: &str) -> Registries {
    Registries::new(vec![Registry {
        host: host.to_owned(),
        plain_http: true,
        credentials: Some(Credentials {
            username: "operator".into(),
            password: "hunter2".into(),
            repositories: vec!["shared/plugins".into(), String::new()],
        }),
    }])
}

/// What a registry was told of who is asking.
async fn heard_by_a_registry(repository: &str, asker: Asker) -> Vec<String> {
    let (host, asked, serving) = answering(vec![nothing()]).await;
    let reference = format!("{host}/{repository}:1.0.0");
    let pulled = with_password(&host).pull(&reference, MAX, asker).await;
    let error = pulled.unwrap_err();
    assert!(matches!(error, OciError::NotFound(_)), "{error}");
    serving.abort();
    let asked = asked.lock().unwrap();
    let lines = asked.iter().flat_map(|request| request.lines());
    let told = lines.filter(|line| line.starts_with("authorization:"));
    told.map(str::to_owned).collect()
}

#[tokio::test]
async fn a_registry_sends_nobody_on_to_a_private_place_and_no_password_to_another() {
    let (other, heard, listening) = answering(vec![nothing()]).await;
    let realm =
        format!("401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"http://{other}/token\"\r\n");
    let sent_on = || {
        let head = format!("307 Temporary Redirect\r\nLocation: http://{other}/v2/\r\n");
        (head, String::new())
    };
    let blob = format!("sha256:{}", sha256_hex(b"x"));
    let manifest = format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.wasm.config.v0+json","digest":"{blob}","size":1}},
            "layers":[{{"mediaType":"application/wasm","digest":"{blob}","size":1}}]}}"#
    );
    let manifest = ("200 OK\r\n".to_owned(), manifest);
    for (answers, why) in [
        (vec![(realm, String::new())], "none of its own"),
        (vec![nothing(), sent_on()], "somewhere else"),
        (
            vec![nothing(), manifest, sent_on()],
            "no name on the internet",
        ),
    ] {
        for repository in ["shared/plugins/slack", "open/slack"] {
            let (host, _, serving) = answering(answers.clone()).await;
            let reference = format!("{host}/{repository}:1.0.0");
            let pulled = with_password(&host)
                .pull(&reference, MAX, Asker::Tenant)
                .await;
            let error = pulled.unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            serving.abort();
        }
    }
    assert_eq!(heard.lock().unwrap().len(), 0);
    listening.abort();
}

#[tokio::test]
async fn credentials_are_the_operators_but_where_they_are_shared() {
    for repository in ["shared/plugins/slack", "shared/plugins"] {
        let heard = heard_by_a_registry(repository, Asker::Tenant).await;
        assert!(!heard.is_empty(), "{repository}");
    }
    for repository in ["private/slack", "shared/plugins-of-ours/slack", "shared/x"] {
        let heard = heard_by_a_registry(repository, Asker::Tenant).await;
        assert_eq!(heard, Vec::<String>::new(), "{repository}");
        let heard = heard_by_a_registry(repository, Asker::Operator).await;
        assert!(heard[0].starts_with("authorization: basic "), "{heard:?}");
    }
}

/// Pushes a component under a manifest of the caller's, and gives the reference by digest.
async fn push_manifest(
    registry: &DockerRegistry,
    name: &str,
    component: &[u8],
    change: impl FnOnce(&mut OciImageManifest),
) -> String {
    let image: Reference = format!("{}/{name}", registry.host()).parse().unwrap();
    let client = registry.client();
    let layers = vec![ImageLayer::new(
        component.to_vec(),
        "application/wasm".into(),
        None,
    )];
    let config = Config::new(
        &b"{}"[..],
        "application/vnd.wasm.config.v0+json".into(),
        None,
    );
    client
        .auth(
            &image,
            &RegistryAuth::Anonymous,
            oci_client::RegistryOperation::Push,
        )
        .await
        .unwrap();
    let mut manifest = OciImageManifest::build(&layers, &config, None);
    client
        .push_blob(&image, config.data.clone(), &manifest.config.digest)
        .await
        .unwrap();
    client
        .push_blob(&image, layers[0].data.clone(), &manifest.layers[0].digest)
        .await
        .unwrap();
    manifest.media_type = Some("application/vnd.oci.image.manifest.v1+json".into());
    change(&mut manifest);
    let manifest = OciManifest::Image(manifest);
    client.push_manifest(&image, &manifest).await.unwrap();
    let digest = client
        .fetch_manifest_digest(&image, &RegistryAuth::Anonymous)
        .await
        .unwrap();
    image.clone_with_digest(digest).to_string()
}
