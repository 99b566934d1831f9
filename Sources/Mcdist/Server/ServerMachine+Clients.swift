/// What clients say of themselves, and what the server makes of it.
extension ServerMachine {
  /// Whether this client gets pages by unicast. Where multicast does not arrive each that asks does. Where multicast loses
  /// much, only while few ask for it: what most lose is lost for want of room, and unicast for all needs so many times more.
  mutating func decideTransport(_ client: inout ServerClient, _ request: PageRequest) {
    if client.isLossy { lossyClients -= 1 }
    client.isLossy = request.wantsUnicast && Double(request.loss) > 0.1 * 65536
    if client.isLossy { lossyClients += 1 }
    client.wantsUnicast =
      switch configuration.transport {
      case .unicast: true
      case .multicast: false
      case .auto: request.wantsUnicast && (!client.isLossy || lossyClients <= max(1, clients.count / 4))
      }
  }

  func reportedLoss(now: UInt64) -> Double {
    var (sum, count) = (0.0, 0)
    for client in clients.values where !client.wantsUnicast && client.isActive(now) {
      sum += Double(client.loss) / 65536
      count += 1
    }
    return count > 0 ? sum / Double(count) : 0
  }

  mutating func makeRoom() {
    guard clients.count >= configuration.clientsMax else { return }
    guard let oldest = clients.min(by: { $0.value.heardAt < $1.value.heardAt }) else { return }
    if oldest.value.isLossy { lossyClients -= 1 }
    clients[oldest.key] = nil
  }

  /// What the receivers get together of what is sent: the mean of those by multicast, the sum of those by unicast.
  /// Nobody is believed beyond what is sent, nor below the floor; who asks for nothing for half a second does not count.
  mutating func delivered(now: UInt64) -> Double? {
    let sending = limit.sendRate(now: now)
    var (sum, count, alone) = (0.0, 0, 0.0)
    for client in clients.values where client.receiveRate > 0 && client.isActive(now) {
      let rate = min(
        max(Double(client.receiveRate), configuration.floorRate), max(sending, configuration.floorRate))
      if client.wantsUnicast {
        alone += rate
      } else {
        sum += rate
        count += 1
      }
    }
    if count == 0 && alone == 0 { return nil }
    return min((count > 0 ? sum / Double(count) : 0) + alone, max(sending, configuration.floorRate))
  }
}
