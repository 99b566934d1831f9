import GuestMemory
import LinuxSystem

extension PageReceiver {
  /// At most 16 receives (a MiB), so that the thread can serve faults in between; a socket that has more stays readable.
  func receive(_ socket: DatagramSocket, isMulticast: Bool, _ now: UInt64) {
    for _ in 0..<16 {
      guard end == nil, let received = socket.receive(into: buffer) else { return }
      guard isMulticast || received.from == server else {  // the group's sender is known by its seal only
        figures.dropped += 1
        continue
      }
      var at = 0
      while at < received.bytes {
        let end = min(at + received.segment, received.bytes)
        take(UnsafeRawBufferPointer(rebasing: buffer[at..<end]), isMulticast: isMulticast, now)
        at = end
      }
      installIfDue(now)
    }
  }

  private func take(_ bytes: UnsafeRawBufferPointer, isMulticast: Bool, _ now: UInt64) {
    guard let opened = opener.open(bytes, into: body) else {
      figures.dropped += 1
      return
    }
    let content = UnsafeRawBufferPointer(start: body, count: opened.bytes)
    let multicast: (instance: UInt64, counter: UInt64)? =
      isMulticast ? (opened.header.instance, opened.header.counter) : nil
    switch opened.header.kind {
    case .request: figures.dropped += 1
    case .gone: end = End(reason: String(decoding: content, as: UTF8.self))
    case .pages:
      heard(bytes.count, multicast, now)
      guard takePages(content, from: opened.header.instance, now) else { return }
      if let multicast { blocks.add(content, instance: multicast.instance, counter: multicast.counter) }
    case .parity:
      guard let packet = ParityPacket(content) else {
        figures.dropped += 1
        return
      }
      heard(bytes.count, nil, now)
      // The bodies that come of it may be malformed only if the server's were.
      var lost: [UnsafeRawBufferPointer] = []
      blocks.add(packet, body + ParityPacket.headerBytes) { lost.append($0) }
      for content in lost where takePages(content, from: packet.instance, now) { figures.repaired += 1 }
    }
  }

  private func heard(_ bytes: Int, _ multicast: (instance: UInt64, counter: UInt64)?, _ now: UInt64) {
    figures.bytesReceived += UInt64(bytes)
    figures.datagramsReceived += 1
    machine.heard(bytes: bytes, multicast: multicast, now: now)
  }

  /// False: malformed.
  private func takePages(_ content: UnsafeRawBufferPointer, from instance: UInt64, _ now: UInt64) -> Bool {
    guard var reader = PageReader(content, pageCount: pageCount) else {
      figures.dropped += 1
      return false
    }
    if let echo = reader.echo, echo.client == machine.clientIdentifier {
      machine.heardEcho(of: echo.time, now: now)
    }
    while let record = reader.next() { take(record, content, instance, now) }
    return true
  }

  private func take(
    _ record: PageRecord, _ content: UnsafeRawBufferPointer, _ instance: UInt64, _ now: UInt64
  ) {
    switch record {
    case .zeros(let pages):
      for page in pages where isWanted(page) { stage(page, nil, .raw, now) }
    case .part(let page, let encoding, let total, let offset, let bytes):
      guard isWanted(page, counts: offset == 0) else { return }
      let part = UnsafeRawBufferPointer(rebasing: content[bytes])
      if let whole = reassembly.add(
        page: page, encoding: encoding, total: total, offset: offset, part: part, instance: instance)
      {
        stage(page, whole, encoding, now)
      }
    case .same(let page, let other):
      guard isWanted(page), var again = PageReader(content, pageCount: pageCount) else { return }
      while let record = again.next() {
        guard case .part(other, let encoding, let total, 0, let bytes) = record, bytes.count == total else {
          continue
        }
        stage(page, UnsafeRawBufferPointer(rebasing: content[bytes]), encoding, now)
        return
      }
    }
  }

  /// Not here, neither installed nor staged. One that is here by another way is never asked for again.
  private func isWanted(_ page: PageIndex, counts: Bool = true) -> Bool {
    if machine.isPresent(page) {
      if counts { machine.countDuplicate() }
      return false
    }
    if sink.isMissing(page) { return true }
    machine.markPresent(page..<page + 1)
    return false
  }

  /// `whole`: the encoded page; nil: zeros.
  private func stage(
    _ page: PageIndex, _ whole: UnsafeRawBufferPointer?, _ encoding: PageEncoding, _ now: UInt64
  ) {
    if staging.isFull { install() }
    if let whole {
      guard let room = staging.room() else { return }  // no memory: it is asked for again
      switch encoding {
      case .raw: room.copyMemory(from: whole.baseAddress!, byteCount: Page.bytes)
      case .zstd:
        guard expander.expand(whole, into: room) else {
          figures.dropped += 1
          return
        }
      }
    }
    guard case .new(let how) = machine.received(page, now: now) else { return }
    if whole == nil { staging.addZero(page, how: how) } else { staging.add(page, how: how) }
    // A fault waits: installed before `readable` returns. Else with the batch, 0.5 ms after the first.
    if how == .demanded { installDue = now } else if installDue == nil { installDue = now + 500_000 }
  }

  func installIfDue(_ now: UInt64) {
    if staging.isFull || installDue.map({ $0 <= now }) ?? false { install() }
  }

  /// Hands all that is staged to the sink, what a fault waits for first. Where it has no memory the page stays missing for it; it ends who needs it.
  func install() {
    installDue = nil
    for isDemanded in [true, false] {
      for run in staging.runs where (run.how == .demanded) == isDemanded {
        _ = sink.install(run.pages, bytes: staging.bytes(run), how: run.how)
      }
    }
    staging.removeAll()
  }

  func sendRequests(_ now: UInt64) {
    // A bound; with retries of everything at once the rest goes out at `nextDeadline`, which is then `now`.
    for _ in 0..<8 {
      guard let request = machine.nextRequest(now: now, lacking: { reassembly.lacking($0) }) else { return }
      send(request)
    }
  }

  /// One that is lost here is asked for again like one that is lost on the way.
  func send(_ request: PageRequest) {
    let count = RequestPacket.write(request, to: scratch)
    let length = sealer.seal(
      UnsafeRawBufferPointer(start: scratch, count: count), kind: .request, into: datagram)
    _ = unicast.send(UnsafeRawBufferPointer(start: datagram, count: length), to: server)
  }
}
