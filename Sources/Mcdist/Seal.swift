import Crypto
import FoundationEssentials

/// Encrypts and authenticates datagrams of one sender's run: AES-256-GCM under a key derived (HKDF-SHA256, RFC 5869)
/// from the snapshot's key and the run's random instance, with the datagram's counter as nonce. A counter is used
/// once; after a restart there is another instance, and so another key.
struct Sealer {
  let instance: UInt64
  private let key: SymmetricKey
  private var counter: UInt64 = 0

  init(snapshotKey: [UInt8]) {
    instance = UInt64.random(in: 1...UInt64.max)
    key = Self.key(snapshotKey, instance)
  }

  static func key(_ snapshotKey: [UInt8], _ instance: UInt64) -> SymmetricKey {
    withUnsafeBytes(of: instance.littleEndian) {
      HKDF<SHA256>.deriveKey(
        inputKeyMaterial: SymmetricKey(data: snapshotKey), salt: $0,
        info: Array("snowfork mcdist 1".utf8), outputByteCount: 32)
    }
  }

  static func nonce(_ counter: UInt64) -> AES.GCM.Nonce {
    withUnsafeTemporaryAllocation(byteCount: 12, alignment: 8) { bytes in
      bytes.initializeMemory(as: UInt8.self, repeating: 0)
      bytes.storeBytes(of: counter.littleEndian, toByteOffset: 0, as: UInt64.self)
      // 12 bytes are what GCM takes.
      return try! AES.GCM.Nonce(data: UnsafeRawBufferPointer(bytes))
    }
  }

  /// Makes a datagram of `body` at `out`, which has room for it. Answers its length.
  mutating func seal(
    _ kind: Datagram.Kind, body: UnsafeRawBufferPointer, into out: UnsafeMutableRawPointer
  ) -> Int {
    counter += 1
    var header = BodyWriter(out, capacity: Datagram.headerBytes)
    header.put(Datagram.magic)
    header.put(kind.rawValue)
    header.put(Datagram.version)
    header.put(UInt16(0))
    header.put(instance)
    header.put(counter)
    // Fails only for a wrong key size.
    let box = try! AES.GCM.seal(
      body, using: key, nonce: Self.nonce(counter),
      authenticating: UnsafeRawBufferPointer(start: out, count: Datagram.headerBytes))
    let rest = UnsafeMutableRawBufferPointer(
      start: out + Datagram.headerBytes, count: body.count + Datagram.tagBytes)
    box.ciphertext.copyBytes(to: rest)
    box.tag.copyBytes(to: UnsafeMutableRawBufferPointer(rebasing: rest[body.count...]))
    return Datagram.headerBytes + rest.count
  }
}

/// Opens datagrams of any sender that has the snapshot's key. Each counter of an instance is taken once: a window of
/// 1,024 counters below the highest one seen; older ones count as replayed.
struct Opener {
  struct Opened {
    var kind: Datagram.Kind
    var instance: UInt64
    var counter: UInt64
    var bodyBytes: Int
  }

  private struct Sender {
    var key: SymmetricKey
    var highest: UInt64 = 0
    var seen = [UInt64](repeating: 0, count: 16)
    var lastUse: UInt64 = 0
  }

  private let snapshotKey: [UInt8]
  private var senders: [UInt64: Sender] = [:]
  private static let sendersMax = 4096
  private static let window: UInt64 = 1024
  private var uses: UInt64 = 0

  init(snapshotKey: [UInt8]) { self.snapshotKey = snapshotKey }

  /// Decrypts into `body`, which has room for a datagram. Nil: forged, altered, replayed or malformed.
  mutating func open(_ datagram: UnsafeRawBufferPointer, into body: UnsafeMutableRawPointer) -> Opened? {
    var header = BodyReader(datagram)
    guard datagram.count >= Datagram.headerBytes + Datagram.tagBytes, datagram.count <= Datagram.bytesMax,
      header.take(UInt32.self) == Datagram.magic, let kind: UInt8 = header.take(),
      let kind = Datagram.Kind(rawValue: kind), header.take(UInt8.self) == Datagram.version,
      header.take(UInt16.self) == 0, let instance: UInt64 = header.take(),
      let counter: UInt64 = header.take(), counter > 0
    else { return nil }
    let isKnown = senders[instance] != nil
    if isKnown, isReplay(counter, of: instance) { return nil }
    let key = senders[instance]?.key ?? Sealer.key(snapshotKey, instance)
    let bodyBytes = datagram.count - Datagram.headerBytes - Datagram.tagBytes
    let cipherEnd = Datagram.headerBytes + bodyBytes
    guard
      let box = try? AES.GCM.SealedBox(
        nonce: Sealer.nonce(counter),
        ciphertext: UnsafeRawBufferPointer(rebasing: datagram[Datagram.headerBytes..<cipherEnd]),
        tag: UnsafeRawBufferPointer(rebasing: datagram[cipherEnd...])),
      let plain = try? AES.GCM.open(
        box, using: key,
        authenticating: UnsafeRawBufferPointer(rebasing: datagram[..<Datagram.headerBytes]))
    else { return nil }
    if !isKnown { admit(instance, key) }
    note(counter, of: instance)
    plain.copyBytes(to: UnsafeMutableRawBufferPointer(start: body, count: bodyBytes))
    return Opened(kind: kind, instance: instance, counter: counter, bodyBytes: bodyBytes)
  }

  /// Only those that authenticated get here: a stranger can not fill the table.
  private mutating func admit(_ instance: UInt64, _ key: SymmetricKey) {
    if senders.count >= Self.sendersMax, let oldest = senders.min(by: { $0.value.lastUse < $1.value.lastUse })
    {
      senders[oldest.key] = nil
    }
    senders[instance] = Sender(key: key)
  }

  private func isReplay(_ counter: UInt64, of instance: UInt64) -> Bool {
    guard let sender = senders[instance], counter <= sender.highest else { return false }
    if sender.highest - counter >= Self.window { return true }
    let bit = counter % Self.window
    return sender.seen[Int(bit >> 6)] >> (bit & 63) & 1 != 0
  }

  private mutating func note(_ counter: UInt64, of instance: UInt64) {
    uses += 1
    let now = uses
    withUnsafeMutablePointer(to: &senders[instance]!) { sender in
      if counter > sender.pointee.highest {
        let first = max(sender.pointee.highest + 1, counter >= Self.window ? counter - Self.window + 1 : 1)
        for passed in first...counter {
          let bit = passed % Self.window
          sender.pointee.seen[Int(bit >> 6)] &= ~(1 << (bit & 63))
        }
        sender.pointee.highest = counter
      }
      let bit = counter % Self.window
      sender.pointee.seen[Int(bit >> 6)] |= 1 << (bit & 63)
      sender.pointee.lastUse = now
    }
  }
}
