//! TLS to the server: whom this process trusts.

use hyper_rustls::ConfigBuilderExt;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use settings::SettingError;

use crate::{config::Config, error::Error};

/// The TLS settings of a client of `server`. Without TLS, no certificates need to be read, or be there.
///
/// # Errors
/// `NODE_SERVER_CA_FILE` cannot be used, or this system has no CA certificates.
pub(super) fn client(config: &Config, server: &str) -> Result<ClientConfig, Error> {
    let unusable = |error: rustls::Error| {
        let reason = match error {
            rustls::Error::General(reason) => reason,
            other => other.to_string(),
        };
        Error::Other(format!(
            "cannot use TLS for {server}: {reason}; install the CA certificates of this system \
             (on Debian: ca-certificates), or name those of the server by NODE_SERVER_CA_FILE"
        ))
    };
    let provider = rustls::crypto::aws_lc_rs::default_provider().into();
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?;
    let verified = match &config.server_ca_file {
        _ if !server.starts_with("https://") => {
            builder.with_root_certificates(RootCertStore::empty())
        }
        Some(path) => builder.with_root_certificates(authorities(path)?),
        None => builder.try_with_platform_verifier().map_err(unusable)?,
    };
    Ok(verified.with_no_client_auth())
}

/// The CA certificates in the file that `NODE_SERVER_CA_FILE` names.
///
/// # Errors
/// There are none.
pub(crate) fn authorities(path: &str) -> Result<RootCertStore, SettingError> {
    let unusable = |reason: &str| {
        let expected = format!("expected a PEM file with CA certificates ({reason})");
        SettingError::new("NODE_SERVER_CA_FILE", path, expected)
    };
    let pem = std::fs::read(path).map_err(|error| unusable(&error.to_string()))?;
    let mut authorities = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| unusable(&error.to_string()))?;
        authorities.add(certificate).map_err(|error| unusable(&error.to_string()))?;
    }
    match authorities.is_empty() {
        true => Err(unusable("there is none in it")),
        false => Ok(authorities),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_usable_certificates_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let path = path.to_str().unwrap();
        let error = || authorities(path).unwrap_err().to_string();
        let expected = "expected a PEM file with CA certificates";
        let start = format!("invalid NODE_SERVER_CA_FILE {path:?}: {expected}");
        assert_eq!(error(), format!("{start} (No such file or directory (os error 2))"));
        let garbage = "-----BEGIN CERTIFICATE-----\nMQ==\n-----END CERTIFICATE-----\n";
        for (text, reason) in
            [("", "there is none in it"), ("no PEM", "there is none"), (garbage, "")]
        {
            std::fs::write(path, text).unwrap();
            let error = error();
            assert!(error.starts_with(&start) && error.contains(reason), "{error}");
        }
    }
}
