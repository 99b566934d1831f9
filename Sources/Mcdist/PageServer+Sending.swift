import GuestMemory
import LinuxSystem

extension PageServer {
  /// At most 64 requests, so that a flood of them does not keep the thread.
  func receive(_ now: UInt64) {
    for _ in 0..<64 {
      guard let received = socket.receive(into: buffer) else { return }
      let datagram = UnsafeRawBufferPointer(rebasing: buffer[..<received.bytes])
      guard let opened = opener.open(datagram, into: body), opened.header.kind == .request,
        let request = RequestPacket.read(
          UnsafeRawBufferPointer(start: body, count: opened.bytes), pageCount: pageCount)
      else {
        dropped += 1
        continue
      }
      remember(request.client, at: received.from)
      if gone != nil {
        sendGone(to: received.from)
        continue
      }
      if echoes.count < 1024 { echoes.append((request.client, request.clientTime, now)) }
      machine.receive(request, now: now)
      for run in request.runs where run.urgency != .push {
        for page in run.first..<run.first + UInt32(run.count) { provider.requested(PageIndex(page)) }
      }
    }
  }

  func send(_ now: UInt64) {
    if gone != nil {
      repeatGone(now)
      return
    }
    if let blockedUntil {
      guard now >= blockedUntil else { return }
      self.blockedUntil = nil
      guard flush(now) else { return }
    }
    batch.parities = machine.paritiesPerBlock(now: now)
    var pages = 0
    var batches = 0
    var hasDemanded = false
    while batches < 4, pages < 1024, let transmission = machine.next(now: now) {
      // What a fault waits for does not wait for what is ahead of need.
      let isAhead = transmission.urgency != .demand
      if destination != transmission.to || !batch.hasRoom || (hasDemanded && isAhead) {
        guard flush(now) else {
          machine.postpone(transmission, now: now)
          return
        }
        batches += 1
      }
      destination = transmission.to
      hasDemanded = !isAhead
      pages += 1
      switch provider.read(transmission.page, into: page) {
      case .bytes: add(transmission, page, now)
      case .zero: add(transmission, nil, now)
      case .pending: machine.postpone(transmission, now: now)
      case .lost:
        announceGone("page \(transmission.page) is not to be had any more", now: now)
        return
      }
    }
    _ = flush(now)
  }

  private func add(_ transmission: Transmission, _ content: UnsafeRawPointer?, _ now: UInt64) {
    let (index, parts) = (transmission.page, transmission.parts)
    if case .unicast = destination {
      batch.add(index, content, parts, sealer: &unicastSealer) { self.echo(now) }
    } else {
      batch.add(index, content, parts, sealer: &multicastSealer) { self.echo(now) }
      machine.sent(index, in: multicastSealer.counter)
    }
    machine.sent(bytes: batch.takeCost(), pages: 1, now: now)
  }

  /// False: the socket is full, for a millisecond.
  private func flush(_ now: UInt64) -> Bool {
    guard !batch.isEmpty, let destination else { return true }
    let isSent: Bool
    switch destination {
    case .multicast:
      isSent = batch.flush(socket, to: group, sealer: &multicastSealer) { self.echo(now) }
    case .unicast(let client):
      // A client that was forgotten asks again: what was for it goes where nobody listens.
      let endpoint = endpoints[client] ?? DatagramEndpoint(address: 0x7f00_0001, port: 9)
      isSent = batch.flush(socket, to: endpoint, sealer: &unicastSealer) { self.echo(now) }
    }
    if !isSent { blockedUntil = now + 1_000_000 }
    return isSent
  }

  private func echo(_ now: UInt64) -> RequestEcho? {
    guard let next = echoes.popFirst() else { return nil }
    return RequestEcho(client: next.client, time: next.time &+ (now - min(next.at, now)))
  }

  private func remember(_ client: UInt32, at endpoint: DatagramEndpoint) {
    if endpoints[client] == nil && endpoints.count >= 8192 { endpoints.removeAll(keepingCapacity: true) }
    endpoints[client] = endpoint
  }

  /// Five times in some 0.6 s, to the group and to each client.
  private func repeatGone(_ now: UInt64) {
    guard var gone, let again = gone.again, now >= again else { return }
    gone.again = gone.distance > 400_000_000 ? nil : now + gone.distance
    gone.distance *= 2
    self.gone = gone
    sealGone(&multicastSealer, to: group)
    for endpoint in endpoints.values { sendGone(to: endpoint) }
  }

  private func sendGone(to endpoint: DatagramEndpoint) { sealGone(&unicastSealer, to: endpoint) }

  private func sealGone(_ sealer: inout Sealer, to endpoint: DatagramEndpoint) {
    guard let gone else { return }
    gone.reason.withUnsafeBytes { reason in
      let count = sealer.seal(reason, kind: .gone, into: page)
      _ = socket.send(UnsafeRawBufferPointer(start: page, count: count), to: endpoint)
    }
  }
}
