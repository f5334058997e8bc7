//! Real connections: certificates of a CA that nobody knows, and redirects to elsewhere.
//!
//! `certificates/` has the certificate of a CA, and one of a server on this machine with its key. Both are
//! valid for a hundred years, and the key of the CA is gone.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::http::{StatusCode, header};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use insta::assert_snapshot;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::Transcript;
use super::keptn::Keptn;
use crate::{cli, init_container};

/// Names the address that [`who_knows_the_ca`] asks.
const ADDRESS: &str = "JES_TEST_ADDRESS";

const CA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/tests/certificates/ca.pem");

fn install_provider() {
    rustls::crypto::ring::default_provider()
        .install_default()
        .ok();
}

/// A Keptn behind TLS.
async fn secured() -> SocketAddr {
    install_provider();
    let keptn = Keptn::new(Transcript::default());
    keptn.has("dev/svc", "a", "content");
    let certificate = CertificateDer::from_pem_slice(include_bytes!("certificates/server.pem"));
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("certificates/server.key"));
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.unwrap()], key.unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, router) = (acceptor.clone(), keptn.router());
            tokio::spawn(async move {
                // A client that does not trust the certificate is gone.
                let Ok(stream) = acceptor.accept(stream).await else {
                    return;
                };
                let service = TowerToHyperService::new(router);
                let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                served.await.ok();
            });
        }
    });
    address
}

async fn fetched(base: &str, flags: &[&str]) -> String {
    let directory = tempfile::tempdir().unwrap();
    let mut arguments = vec![
        format!("--configuration-service={base}/configuration-service"),
        format!("--directory={}", directory.path().display()),
        "--project=real".into(),
        "--stage=dev".into(),
        "--service=svc".into(),
        "--file=a".into(),
    ];
    arguments.extend(flags.iter().map(ToString::to_string));
    let settings = cli::init_settings(&arguments);
    match init_container::run(settings).await {
        Ok(()) => "copied".into(),
        Err(error) => format!("{error:#}").replace(base, "KEPTN"),
    }
}

#[tokio::test]
async fn an_unknown_certificate_is_refused_unless_the_operator_says_otherwise() {
    let base = format!("https://{}", secured().await);
    let report = [
        fetched(&base, &[]).await,
        fetched(&base, &["--http-ssl-verify=true"]).await,
        fetched(&base, &["--http-ssl-verify=false"]).await,
    ];
    assert_snapshot!(report.join("\n"), @"
    no answer from KEPTN/configuration-service/v1/project/real/stage/dev/service/svc/resource/a: the certificate is not trusted: UnknownIssuer (SSL_CERT_FILE names a file with the certificates of other CAs)
    no answer from KEPTN/configuration-service/v1/project/real/stage/dev/service/svc/resource/a: the certificate is not trusted: UnknownIssuer (SSL_CERT_FILE names a file with the certificates of other CAs)
    copied
    ");
}

/// Variables of this process are shared by all tests, so that another one asks.
#[tokio::test]
async fn a_private_ca_is_trusted_where_ssl_cert_file_names_it() {
    let address = secured().await;
    let ask = move || {
        Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "--ignored",
                "tests::certificates::who_knows_the_ca",
            ])
            .env("SSL_CERT_FILE", CA)
            .env(ADDRESS, address.to_string())
            .output()
            .unwrap()
    };
    let output = tokio::task::spawn_blocking(ask).await.unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && told.contains("1 passed"),
        "{told}"
    );
}

#[tokio::test]
#[ignore = "a part of a_private_ca_is_trusted_where_ssl_cert_file_names_it"]
async fn who_knows_the_ca() {
    let Ok(address) = std::env::var(ADDRESS) else {
        return;
    };
    install_provider();
    assert_eq!(fetched(&format!("https://{address}"), &[]).await, "copied");
}

#[tokio::test]
async fn credentials_are_not_carried_along_a_redirect() {
    install_provider();
    let listens = async |router: Router| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        format!("http://{address}")
    };
    let visits = Arc::new(AtomicUsize::new(0));
    let visited = Arc::clone(&visits);
    let elsewhere = Router::new().fallback(move || {
        visited.fetch_add(1, Ordering::SeqCst);
        std::future::ready(StatusCode::OK)
    });
    let elsewhere = listens(elsewhere).await;
    for code in [301, 302, 307, 308] {
        let code = StatusCode::from_u16(code).unwrap();
        let location = [(header::LOCATION, elsewhere.clone())];
        let away = Router::new().fallback(move || std::future::ready((code, location.clone())));
        let base = listens(away).await;
        let told = fetched(&base, &["--keptn-api-token=x-1"]).await;
        assert!(told.contains(&format!("answered {code}")), "{told}");
        let token_url = format!("--oauth-token-url={base}/token");
        let oauth = [
            "--oauth-client-id=a",
            "--oauth-client-secret=b",
            "--oauth-scopes=c",
            &token_url,
        ];
        let told = fetched(&base, &oauth).await;
        assert!(told.contains("KEPTN/token answered"), "{told}");
    }
    assert_eq!(visits.load(Ordering::SeqCst), 0);
}
