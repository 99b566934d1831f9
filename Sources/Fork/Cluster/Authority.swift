import Crypto
import Foundation
import X509

/// The cluster's authority: it signs one certificate a host, and nothing else is trusted. P-256 keys; certificates
/// hold for ten years, a host's is renewed by adding it anew.
struct Authority: Sendable {
  let certificatePEM: String
  let keyPEM: String

  static let lifetime: TimeInterval = 10 * 365 * 86400

  static func make() throws -> Authority {
    let key = P256.Signing.PrivateKey()
    let name = try DistinguishedName { CommonName("snowfork cluster authority") }
    let certificate = try certificate(
      subject: name, publicKey: .init(key.publicKey), issuer: name, issuerKey: .init(key),
      extensions: Certificate.Extensions {
        Critical(BasicConstraints.isCertificateAuthority(maxPathLength: 0))
        Critical(KeyUsage(keyCertSign: true))
      })
    return Authority(
      certificatePEM: try certificate.serializeAsPEM().pemString, keyPEM: key.pemRepresentation)
  }

  /// A key and certificate for the host of that name.
  func enrol(host: String) throws -> (certificatePEM: String, keyPEM: String) {
    let own = try Certificate(pemEncoded: certificatePEM)
    let key = P256.Signing.PrivateKey()
    let certificate = try Self.certificate(
      subject: try DistinguishedName { CommonName(host) }, publicKey: .init(key.publicKey),
      issuer: own.subject, issuerKey: try .init(pemEncoded: keyPEM),
      extensions: Certificate.Extensions {
        Critical(BasicConstraints.notCertificateAuthority)
        Critical(KeyUsage(digitalSignature: true))
        try ExtendedKeyUsage([.serverAuth, .clientAuth])
        SubjectAlternativeNames([.dnsName(Self.dnsName(ofHost: host))])
      })
    return (try certificate.serializeAsPEM().pemString, key.pemRepresentation)
  }

  /// What a host's certificate is checked for, whatever its address is.
  static func dnsName(ofHost host: String) -> String { "\(host).snowfork.internal" }

  private static func certificate(
    subject: DistinguishedName, publicKey: Certificate.PublicKey, issuer: DistinguishedName,
    issuerKey: Certificate.PrivateKey, extensions: Certificate.Extensions
  ) throws -> Certificate {
    // Clocks of hosts differ.
    let begin = Date() - 86400
    return try Certificate(
      version: .v3, serialNumber: .init(), publicKey: publicKey, notValidBefore: begin,
      notValidAfter: begin + lifetime, issuer: issuer, subject: subject,
      signatureAlgorithm: .ecdsaWithSHA256, extensions: extensions, issuerPrivateKey: issuerKey)
  }

  /// The host that a peer's certificate was made for.
  static func host(of certificate: Certificate) -> String? {
    for part in certificate.subject {
      for attribute in part where attribute.type == .RDNAttributeType.commonName {
        return String(describing: attribute.value)
      }
    }
    return nil
  }
}
