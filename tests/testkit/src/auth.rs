//! Keys and tokens for the server's `auth` section, and TLS in front of a server.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

pub use jsonwebtoken::Algorithm;
use jsonwebtoken::{EncodingKey, Header, encode};
use rcgen::{
    BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256,
    PKCS_ED25519, PKCS_RSA_SHA256, RsaKeySize,
};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{PrivateKeyDer, pem::PemObject},
    },
};

/// A private key that signs tokens.
pub struct Signer {
    algorithm: Algorithm,
    private: EncodingKey,
    /// The public key, as PEM.
    pub public: String,
}

impl Signer {
    /// A new key for `algorithm`.
    ///
    /// # Panics
    /// It is none of RS256, ES256 and EdDSA.
    pub fn new(algorithm: Algorithm) -> Self {
        let (pair, private): (_, fn(&[u8]) -> _) = match algorithm {
            Algorithm::RS256 => (
                KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048),
                EncodingKey::from_rsa_pem,
            ),
            Algorithm::ES256 => {
                (KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256), EncodingKey::from_ec_pem)
            }
            Algorithm::EdDSA => (KeyPair::generate_for(&PKCS_ED25519), EncodingKey::from_ed_pem),
            other => panic!("no key for {other:?}"),
        };
        let pair = pair.unwrap();
        let private = private(pair.serialize_pem().as_bytes()).unwrap();
        Self { algorithm, private, public: pair.public_key_pem() }
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> String {
        encode(&Header::new(self.algorithm), claims, &self.private).unwrap()
    }

    /// A token that covers every id and expires in so many seconds, or has expired.
    pub fn token(&self, seconds: i64) -> String {
        self.sign(&json!({"prefix": "", "exp": in_seconds(seconds)}))
    }
}

/// The time in so many seconds, as tokens have it.
pub fn in_seconds(seconds: i64) -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    i64::try_from(now).unwrap() + seconds
}

/// The settings that make a server of either kind verify tokens with this public key.
pub fn settings(public_key: &Path) -> Vec<(String, String)> {
    let names = ["RESONATE_AUTH__PUBLICKEY", "EMBEDDED_SERVER_AUTH_PUBLICKEY"];
    names.map(|name| (name.to_owned(), public_key.display().to_string())).to_vec()
}

/// A proxy that ends TLS in front of a server, with a certificate of a CA of its own.
pub struct Tls {
    /// The URL of the server behind it.
    pub url: String,
    /// The certificate of the CA.
    pub ca_file: PathBuf,
    accepting: JoinHandle<()>,
}

impl Tls {
    /// Starts the proxy in front of `server`. Its CA goes to a file in `folder`.
    pub async fn start(server: SocketAddr, folder: &Path) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca_file = folder.join("ca.pem");
        std::fs::write(&ca_file, params.self_signed(&key).unwrap().pem()).unwrap();
        let issuer = Issuer::new(params, key);

        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap().der().clone();
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).unwrap();
        let config = ServerConfig::builder_with_provider(
            tokio_rustls::rustls::crypto::aws_lc_rs::default_provider().into(),
        );
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let config = config.with_single_cert(vec![certificate], key).unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));

        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // A client that does not trust the certificate hangs up.
                    let Ok(mut client) = acceptor.accept(client).await else { return };
                    let Ok(mut server) = TcpStream::connect(server).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                });
            }
        });
        Self { url, ca_file, accepting }
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
