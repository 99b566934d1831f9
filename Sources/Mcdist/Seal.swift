import Crypto
import Foundation

/// Who sends under a key: the two directions have keys of their own.
package enum SealDirection: String, Sendable {
  case pages = "snowfork mcdist 1 pages"
  case requests = "snowfork mcdist 1 requests"

  /// The key of one sender's run. The instance is 64 random bits that a sender draws at each start, so a counter that
  /// begins at 0 again meets a new key, and no nonce is used twice under one.
  package func key(snapshot: SymmetricKey, instance: UInt64) -> SymmetricKey {
    withUnsafeBytes(of: instance.littleEndian) { salt in
      HKDF<SHA256>.deriveKey(
        inputKeyMaterial: snapshot, salt: salt, info: Data(rawValue.utf8), outputByteCount: 32)
    }
  }
}

private func nonce(_ counter: UInt64) -> AES.GCM.Nonce {
  var bytes: (UInt32, UInt32, UInt32) = (
    0, UInt32(truncatingIfNeeded: counter), UInt32(truncatingIfNeeded: counter >> 32)
  )
  // Throws for a length other than 12 only.
  return withUnsafeBytes(of: &bytes) { try! AES.GCM.Nonce(data: $0) }
}

private func borrowed(_ bytes: UnsafeRawBufferPointer) -> Data {
  Data(
    bytesNoCopy: UnsafeMutableRawPointer(mutating: bytes.baseAddress!), count: bytes.count, deallocator: .none
  )
}

/// Seals the datagrams of one sender's run: AES-256-GCM, the header authenticated, the counter as the nonce.
package struct Sealer {
  package let instance: UInt64
  private let key: SymmetricKey
  /// Of the next datagram.
  package private(set) var counter: UInt64 = 0

  package init(snapshotKey: SymmetricKey, direction: SealDirection, instance: UInt64) {
    self.instance = instance
    key = direction.key(snapshot: snapshotKey, instance: instance)
  }

  /// Writes the whole datagram to `datagram` (`body.count + PacketHeader.bytes + PacketHeader.tagBytes` long).
  package mutating func seal(
    _ body: UnsafeRawBufferPointer, kind: PacketKind, into datagram: UnsafeMutableRawPointer
  ) -> Int {
    PacketHeader(kind: kind, instance: instance, counter: counter).write(to: datagram)
    let header = UnsafeRawBufferPointer(start: datagram, count: PacketHeader.bytes)
    // Fails for a message of 64 GiB and for a bad key size only.
    let box = try! AES.GCM.seal(
      borrowed(body), using: key, nonce: nonce(counter), authenticating: borrowed(header))
    counter += 1
    let target = datagram + PacketHeader.bytes
    box.ciphertext.withUnsafeBytes { target.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
    box.tag.withUnsafeBytes { (target + body.count).copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
    return PacketHeader.bytes + body.count + PacketHeader.tagBytes
  }
}

/// Opens datagrams of all senders of one direction, each datagram once.
package final class Opener {
  private final class Sender {
    let key: SymmetricKey
    var window = ReplayWindow()
    var lastUse: UInt64 = 0
    init(key: SymmetricKey) { self.key = key }
  }
  private let snapshotKey: SymmetricKey
  private let direction: SealDirection
  private let sendersMax: Int
  private var senders: [UInt64: Sender] = [:]
  private var last: (instance: UInt64, sender: Sender)?
  private var uses: UInt64 = 0

  /// `sendersMax`: how many instances are remembered; beyond that the one unheard for longest is forgotten.
  package init(snapshotKey: SymmetricKey, direction: SealDirection, sendersMax: Int) {
    self.snapshotKey = snapshotKey
    self.direction = direction
    self.sendersMax = sendersMax
  }

  package struct Opened {
    package var header: PacketHeader
    package var bytes: Int
  }

  /// Puts the body into `body` (`PacketHeader.bodyBytesMax` long). Nil: not authentic, or seen before, or malformed.
  package func open(_ datagram: UnsafeRawBufferPointer, into body: UnsafeMutableRawPointer) -> Opened? {
    guard let header = PacketHeader(datagram) else { return nil }
    let known: Sender?
    if let last, last.instance == header.instance {
      known = last.sender
    } else {
      known = senders[header.instance]
    }
    if let known, !known.window.isNew(header.counter) { return nil }
    let sender = known ?? Sender(key: direction.key(snapshot: snapshotKey, instance: header.instance))
    let count = datagram.count - PacketHeader.bytes - PacketHeader.tagBytes
    let start = datagram.baseAddress!
    let sealed = UnsafeRawBufferPointer(start: start + PacketHeader.bytes, count: count)
    let tag = UnsafeRawBufferPointer(start: start + PacketHeader.bytes + count, count: PacketHeader.tagBytes)
    let clear = UnsafeRawBufferPointer(start: start, count: PacketHeader.bytes)
    guard
      let box = try? AES.GCM.SealedBox(
        nonce: nonce(header.counter), ciphertext: borrowed(sealed), tag: borrowed(tag)),
      let opened = try? AES.GCM.open(box, using: sender.key, authenticating: borrowed(clear))
    else { return nil }
    if known == nil { remember(sender, as: header.instance) }
    sender.window.insert(header.counter)
    uses &+= 1
    sender.lastUse = uses
    if last?.instance != header.instance { last = (header.instance, sender) }
    opened.withUnsafeBytes { body.copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
    return Opened(header: header, bytes: count)
  }

  /// Only one whose first datagram was authentic takes a place.
  private func remember(_ sender: Sender, as instance: UInt64) {
    if senders.count >= sendersMax, let oldest = senders.min(by: { $0.value.lastUse < $1.value.lastUse }) {
      senders[oldest.key] = nil
      if last?.instance == oldest.key { last = nil }
    }
    senders[instance] = sender
  }
}

/// Which of the last 1,024 counters of a sender have been seen (the window of RFC 6479).
package struct ReplayWindow {
  package static let size: UInt64 = 1024
  /// One word more than the window, so that a word can be cleared whole when the window moves into it.
  private var words = [UInt64](repeating: 0, count: 17)
  private var highest: UInt64 = 0
  private var isEmpty = true

  package init() {}

  /// False: seen, or too old to tell.
  package func isNew(_ counter: UInt64) -> Bool {
    if isEmpty || counter > highest { return true }
    if highest - counter >= Self.size { return false }
    return words[Int(counter / 64 % 17)] & (1 << (counter % 64)) == 0
  }

  package mutating func insert(_ counter: UInt64) {
    if isEmpty || counter > highest {
      let from = isEmpty ? counter / 64 : highest / 64 + 1
      let through = counter / 64
      if through >= from {
        for word in 0..<min(17, through - from + 1) { words[Int((through - word) % 17)] = 0 }
      }
      highest = counter
      isEmpty = false
    }
    words[Int(counter / 64 % 17)] |= 1 << (counter % 64)
  }
}
