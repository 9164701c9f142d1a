//! Certificates of our own making: an authority that nobody else uses, and what it signs for us.

use k8s_openapi::{ByteString, api::core::v1::Secret, jiff::Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use std::{collections::BTreeSet, time::Duration};

const DAY: Duration = Duration::from_secs(86_400);
/// How long the authority is good for, and how long before that another follows it.
const AUTHORITY: (Duration, Duration) = (DAY.saturating_mul(3650), DAY.saturating_mul(730));
/// The same of what it signs.
const SIGNED: (Duration, Duration) = (DAY.saturating_mul(365), DAY.saturating_mul(120));
/// Clocks differ.
const EARLIER: Duration = Duration::from_secs(3600);

/// When the certificate, and when the authority, is to be followed by another. Whoever has a Secret without them made it by
/// other means, and looks after it.
const RENEW: &str = "lb.weir.dev/renew";
const RENEW_AUTHORITY: &str = "lb.weir.dev/renew-authority";
/// The names the certificate is for, with commas between.
const NAMES: &str = "lb.weir.dev/names";

const AUTHORITY_CERTIFICATE: &str = "ca.crt";
const AUTHORITY_KEY: &str = "ca.key";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// What a server and those who ask it need, in PEM.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Bundle {
    /// Who signed: the present authority, and maybe the one before.
    pub(super) authority: Vec<u8>,
    pub(super) certificate: Vec<u8>,
    pub(super) key: Vec<u8>,
}

/// What a Secret has.
pub(super) enum Found {
    /// What we made.
    Ours(Kept),
    /// What somebody else made.
    Others(Bundle),
    /// What cannot be used, of somebody else's; which key is missing.
    Unusable(&'static str),
}

/// What we made, with what is needed to make it anew.
#[derive(Clone)]
pub(super) struct Kept {
    pub(super) bundle: Bundle,
    authority_key: String,
    names: BTreeSet<String>,
    renew: Timestamp,
    renew_authority: Timestamp,
}

/// What is to be made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    Certificate,
    Authority,
}

impl Kept {
    /// What is due for who is called by `names`.
    pub(super) fn due(&self, names: &BTreeSet<String>, now: Timestamp) -> Due {
        if now >= self.renew_authority {
            Due::Authority
        } else if now >= self.renew || !names.is_subset(&self.names) {
            Due::Certificate
        } else {
            Due::Nothing
        }
    }

    /// An authority and a certificate for `names`. What was signed by the authority `before` is still trusted.
    pub(super) fn new(names: &BTreeSet<String>, now: Timestamp, before: Option<&Self>) -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = authority();
        let end = lasting(&mut params, now, AUTHORITY);
        let authority = params.self_signed(&key)?.pem();
        let former = before
            .map(|before| first_certificate(&before.bundle.authority))
            .unwrap_or_default();
        let kept = Self {
            bundle: Bundle {
                authority: [authority.as_bytes(), former].concat(),
                certificate: Vec::new(),
                key: Vec::new(),
            },
            authority_key: key.serialize_pem(),
            names: before.map(|before| before.names.clone()).unwrap_or_default(),
            renew: now,
            renew_authority: end,
        };
        kept.signing(names, now)
    }

    /// The same authority with a new certificate, for `names` and those that there were.
    pub(super) fn signing(&self, names: &BTreeSet<String>, now: Timestamp) -> Result<Self, rcgen::Error> {
        let names: BTreeSet<String> = names.union(&self.names).cloned().collect();
        let issuer = Issuer::new(authority(), KeyPair::from_pem(&self.authority_key)?);
        let mut params = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())?;
        params.distinguished_name.push(DnType::CommonName, "weir-controller");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let renew = lasting(&mut params, now, SIGNED);
        let key = KeyPair::generate()?;
        Ok(Self {
            bundle: Bundle {
                authority: self.bundle.authority.clone(),
                certificate: params.signed_by(&key, &issuer)?.pem().into(),
                key: key.serialize_pem().into(),
            },
            authority_key: self.authority_key.clone(),
            names,
            renew,
            renew_authority: self.renew_authority,
        })
    }

    /// Puts everything into a Secret.
    pub(super) fn put(&self, secret: &mut Secret) {
        secret.data = Some(
            [
                (AUTHORITY_CERTIFICATE, self.bundle.authority.clone()),
                (AUTHORITY_KEY, self.authority_key.clone().into()),
                (CERTIFICATE, self.bundle.certificate.clone()),
                (KEY, self.bundle.key.clone()),
            ]
            .map(|(key, value)| (key.into(), ByteString(value)))
            .into(),
        );
        let names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        secret.metadata.annotations.get_or_insert_default().extend([
            (RENEW.into(), self.renew.to_string()),
            (RENEW_AUTHORITY.into(), self.renew_authority.to_string()),
            (NAMES.into(), names.join(",")),
        ]);
    }
}

/// Reads a Secret; `None` if it is ours and has to be made anew.
pub(super) fn read(secret: &Secret) -> Option<Found> {
    let annotation = |key: &str| secret.metadata.annotations.as_ref()?.get(key);
    let data = |key: &'static str| {
        let value = secret.data.as_ref().and_then(|data| data.get(key));
        value.map(|value| value.0.clone()).ok_or(key)
    };
    let bundle = || {
        Ok(Bundle {
            authority: data(AUTHORITY_CERTIFICATE)?,
            certificate: data(CERTIFICATE)?,
            key: data(KEY)?,
        })
    };
    let Some(renew) = annotation(RENEW) else {
        return Some(bundle().map_or_else(Found::Unusable, Found::Others));
    };
    Some(Found::Ours(Kept {
        bundle: bundle().ok()?,
        authority_key: String::from_utf8(data(AUTHORITY_KEY).ok()?).ok()?,
        names: annotation(NAMES)?.split(',').map(str::to_owned).collect(),
        renew: renew.parse().ok()?,
        renew_authority: annotation(RENEW_AUTHORITY)?.parse().ok()?,
    }))
}

/// All that a certificate of the authority says beside its time; the same each time, so that what it signs names it.
fn authority() -> CertificateParams {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "weir-controller-webhook");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params
}

/// Lets a certificate begin now and last so long; gives when it is to be renewed.
fn lasting(params: &mut CertificateParams, now: Timestamp, (life, rest): (Duration, Duration)) -> Timestamp {
    // Seconds since 1970, which are above zero on any machine that has a certificate to check.
    let epoch = date_time_ymd(1970, 1, 1) + Duration::from_secs(now.as_second().unsigned_abs());
    params.not_before = epoch - EARLIER;
    params.not_after = epoch + life;
    now + (life - rest)
}

/// The first certificate of a PEM file.
fn first_certificate(pem: &[u8]) -> &[u8] {
    const END: &[u8] = b"-----END CERTIFICATE-----";
    let end = pem.windows(END.len()).position(|window| window == END);
    end.map_or(&[], |start| &pem[..start + END.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[&str]) -> BTreeSet<String> {
        all.iter().map(|name| (*name).to_owned()).collect()
    }

    fn count(pem: &[u8]) -> usize {
        String::from_utf8(pem.to_vec())
            .unwrap()
            .matches("BEGIN CERTIFICATE")
            .count()
    }

    #[test]
    fn what_is_kept_in_a_secret_is_read_from_it() {
        let now: Timestamp = "2026-11-25T00:00:00Z".parse().unwrap();
        let made = Kept::new(&names(&["a.b.svc", "10.0.0.1"]), now, None).unwrap();
        let mut secret = Secret::default();
        made.put(&mut secret);
        let Some(Found::Ours(kept)) = read(&secret) else {
            panic!("not ours")
        };
        assert!(kept.bundle == made.bundle && kept.authority_key == made.authority_key);
        assert_eq!(
            (kept.due(&names(&["a.b.svc"]), now), &kept.names),
            (Due::Nothing, &made.names)
        );

        secret.data.as_mut().unwrap().remove(KEY);
        assert!(read(&secret).is_none());
        // Without our annotations it is somebody else's.
        secret.metadata.annotations = None;
        assert!(matches!(read(&secret), Some(Found::Unusable(KEY))));
        made.put(&mut secret);
        secret.metadata.annotations = None;
        assert!(matches!(read(&secret), Some(Found::Others(bundle)) if bundle == made.bundle));
    }

    #[test]
    fn certificates_are_renewed_in_time_and_for_every_name() {
        let now: Timestamp = "2026-11-25T00:00:00Z".parse().unwrap();
        let after = |days: u32| now + DAY * days;
        let first = Kept::new(&names(&["a"]), now, None).unwrap();
        assert_eq!(first.due(&names(&["a"]), after(244)), Due::Nothing);
        assert_eq!(first.due(&names(&["a"]), after(245)), Due::Certificate);
        assert_eq!(first.due(&names(&["b"]), now), Due::Certificate);
        let second = first.signing(&names(&["b"]), after(245)).unwrap();
        assert_eq!(second.names, names(&["a", "b"]));
        assert!(second.bundle.authority == first.bundle.authority);
        assert!(second.bundle.certificate != first.bundle.certificate);
        assert_eq!(second.due(&names(&["a"]), after(400)), Due::Nothing);
        assert_eq!(second.due(&names(&["a"]), after(2920)), Due::Authority);
        // Who still uses what the former one signed is trusted; not who used the one before that.
        let third = Kept::new(&names(&["a"]), after(2920), Some(&second)).unwrap();
        let fourth = Kept::new(&names(&["a"]), after(6000), Some(&third)).unwrap();
        assert_eq!(count(&first.bundle.authority), 1);
        assert_eq!(
            (count(&third.bundle.authority), count(&fourth.bundle.authority)),
            (2, 2)
        );
        assert_eq!(third.names, names(&["a", "b"]));
    }
}
