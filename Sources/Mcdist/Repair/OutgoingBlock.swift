import Crypto
import LinuxSystem

/// A server's side of repair: keeps the bodies of the datagrams of the block that is being sent, and makes its parities.
struct OutgoingBlock: ~Copyable {
  private let bodies: UnsafeMutableRawPointer
  private let parities: UnsafeMutableRawPointer
  private let body: UnsafeMutableRawPointer
  private var next: UInt64 = 0
  private var kept = 0
  /// Sealed, to be sent.
  private var pending = 0
  private var sealer: Sealer
  private let instance: UInt64

  /// `instance`: of the datagrams of pages.
  init(snapshotKey: SymmetricKey, instance: UInt64, parityInstance: UInt64) {
    bodies = .allocate(byteCount: ErasureCode.blockSize * ErasureCode.symbolBytes, alignment: 64)
    parities = .allocate(
      byteCount: ErasureCode.paritiesMax * PacketHeader.datagramBytesMax, alignment: 64)
    body = .allocate(byteCount: PacketHeader.bodyBytesMax, alignment: 64)
    sealer = Sealer(snapshotKey: snapshotKey, direction: .pages, instance: parityInstance)
    self.instance = instance
  }

  deinit {
    bodies.deallocate()
    parities.deallocate()
    body.deallocate()
  }

  var hasPending: Bool { pending > 0 }
  var pendingBytes: Int { pending * PacketHeader.datagramBytesMax }

  /// The body of the datagram with this counter. The last of a block makes `parities` of it, to be sent next.
  mutating func add(_ counter: UInt64, _ sent: UnsafeRawBufferPointer, parities wanted: Int) {
    let place = Int(counter % UInt64(ErasureCode.blockSize))
    kept = place == 0 ? 0 : counter == next ? kept : -ErasureCode.blockSize
    ErasureCode.set(bodies + place * ErasureCode.symbolBytes, to: sent)
    kept += 1
    next = counter + 1
    if kept == ErasureCode.blockSize { make(min(wanted, ErasureCode.paritiesMax), counter) }
  }

  private mutating func make(_ count: Int, _ counter: UInt64) {
    pending = 0
    for index in 0..<count {
      let block = UInt32(truncatingIfNeeded: counter / UInt64(ErasureCode.blockSize))
      ParityPacket(instance: instance, block: block, index: index).write(to: body)
      let symbol = body + ParityPacket.headerBytes
      symbol.initializeMemory(as: UInt8.self, repeating: 0, count: ErasureCode.symbolBytes)
      for datagram in 0..<ErasureCode.blockSize {
        let factor = ErasureCode.coefficient(parity: index, datagram: datagram)
        ErasureCode.add(bodies + datagram * ErasureCode.symbolBytes, times: factor, to: symbol)
      }
      _ = sealer.seal(
        UnsafeRawBufferPointer(start: body, count: PacketHeader.bodyBytesMax), kind: .parity,
        into: parities + index * PacketHeader.datagramBytesMax)
      pending += 1
    }
  }

  /// Parities that a full socket does not take are lost like any datagram.
  mutating func flush(_ socket: DatagramSocket, to endpoint: DatagramEndpoint, isSegmenting: Bool) -> Int {
    let all = UnsafeRawBufferPointer(start: parities, count: pendingBytes)
    defer { pending = 0 }
    if isSegmenting, pending > 1 {
      _ = socket.send(all, segment: PacketHeader.datagramBytesMax, to: endpoint)
    } else {
      for index in 0..<pending {
        let start = index * PacketHeader.datagramBytesMax
        _ = socket.send(
          UnsafeRawBufferPointer(rebasing: all[start..<start + PacketHeader.datagramBytesMax]), to: endpoint)
      }
    }
    return all.count
  }
}
