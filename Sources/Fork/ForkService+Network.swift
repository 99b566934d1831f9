import CloneNetwork
import Crypto
import Foundation
import GuestWire
import Hypervisor
import Wire

/// Networks of families: what belongs to each step of a VM's life. docs/network.md has the way of a frame.
extension ForkService {
  /// What `vm start` asks for.
  struct NetworkRequest: Sendable {
    var isWanted = true
    /// Empty: the usual one.
    var subnet = ""
    var allowed: [String] = []
    var bytesPerSecond: UInt64 = 0
    var forwards: [String] = []
  }

  static let usualSubnet = "10.111.0.0/16"
  /// Names of so many clones are known in the family from the device VM's start on.
  private static let namesAtStart = 256
  /// Of the names that a guest is told, bytes.
  private static let namesLimit = 60 << 10

  // MARK: start

  func makeCard(_ request: NetworkRequest, of name: String, what: String) async throws -> NetworkCard? {
    guard request.isWanted else {
      guard request.allowed.isEmpty, request.forwards.isEmpty, request.subnet.isEmpty,
        request.bytesPerSecond == 0
      else {
        throw ForkError(
          .invalid, "\(what): what has no network has no addresses, ports and rate. Leave --no-network out.")
      }
      return nil
    }
    do { _ = try network.get() } catch {
      throw ForkError(.failed, "\(what): \(error) Or start it with --no-network.")
    }
    let subnet = request.subnet.isEmpty ? configuration.subnet : request.subnet
    guard let plan = IPv4Subnet(subnet).flatMap({ AddressPlan($0) }) else {
      throw ForkError(
        .invalid, "\(what): \(subnet) is no subnet of 8 to 29 bits. Give one like 10.111.0.0/16.")
    }
    for text in request.allowed where OutwardPolicy.Destination(text) == nil {
      throw ForkError(
        .invalid,
        "\(what): \"\(text)\" is no destination. Give one like 10.0.0.0/8, 10.0.0.7:443 or 10.0.0.7:53/udp.")
    }
    for text in request.forwards where PortForward(text) == nil {
      throw ForkError(
        .invalid,
        "\(what): \"\(text)\" is no port of the host and of the VM. Give them like 8080:80 or 5353:53/udp.")
    }
    let family = Family(
      id: "\(name)-\(Self.randomHex(4))", parent: name, home: await cluster.host,
      vni: .random(in: 1...0xFF_FFFF), subnet: subnet,
      allowed: request.allowed.isEmpty ? nil : request.allowed,
      bytesPerSecond: request.bytesPerSecond == 0 ? nil : request.bytesPerSecond)
    let numbers = FamilyNumbers(family, plan)
    familyNumbers[family.id] = numbers
    await persist("the addresses of \(name)") { try await self.store.save(numbers) }
    return NetworkCard(family: family, number: 0, forwards: request.forwards)
  }

  /// Makes the VM's tap, and what of the family's network is missing on this host. Only a slot may say nothing yet.
  func addCard(of record: VMRecord) async throws -> MachineNetwork? {
    guard let card = record.network else { return nil }
    guard let address = card.address, let mac = card.mac else {
      throw ForkError(.failed, "\(card.family.subnet) has no address for \(record.name)")
    }
    let network = try network.get()
    try await makeNetwork(card.family)
    let (family, name) = (hostName(of: card.family), record.name)
    let speaks = record.role != .slot
    let tap = try await workers.run {
      let tap = try network.addTap(vm: name, family: family)
      if speaks { try network.bind(tap: tap.name, mac: mac, address: address) }
      return tap
    }
    taps[name] = tap.name
    guard guests[name] != nil else {
      await removeCard(of: record)
      throw ForkError(.failed, "\(name) was ended meanwhile")
    }
    return MachineNetwork(tap: tap.name, mac: "\(mac)", mtu: configuration.mtu)
  }

  /// Of this daemon: another one of the machine may have families of the same cluster.
  private func hostName(of family: Family) -> String { "\(networkTag).\(family.id)" }

  private var networkTag: String {
    Self.hexadecimal(SHA256.hash(data: Data(configuration.runDirectory.utf8)).prefix(4))
  }

  /// Makes the family's network on this host, or changes what differs.
  private func makeNetwork(_ family: Family, again: Bool = false) async throws {
    let turn = "network of \(family.id)"
    await takeTurn(turn)
    defer { turns.leave(turn) }
    // Its last VM may have gone meanwhile, and the network with it.
    guard !cards(of: family.id).isEmpty else { return }
    let wanted = try await familyNetwork(family)
    guard again || networksMade[family.id] != wanted else { return }
    let network = try network.get()
    try await workers.run { try network.make(wanted) }
    networksMade[family.id] = wanted
  }

  private func familyNetwork(_ family: Family) async throws -> FamilyNetwork {
    guard let subnet = IPv4Subnet(family.subnet) else {
      throw ForkError(.failed, "\(family.subnet) is no subnet")
    }
    let underlay = await cluster.own.flatMap { IPv4Address($0.address) }
    let peers = await cluster.others.compactMap { IPv4Address($0.address) }
    let forwards = cards(of: family.id).flatMap(\.forwards).compactMap { PortForward($0) }
    return FamilyNetwork(
      family: hostName(of: family), vni: family.vni, subnet: subnet,
      underlay: underlay ?? IPv4Address("127.0.0.1")!, peers: underlay == nil ? [] : Set(peers),
      mtu: configuration.mtu, outward: family.outward(hasForwards: !forwards.isEmpty), forwards: Set(forwards)
    )
  }

  /// Of VMs that live here.
  private func cards(of family: String) -> [NetworkCard] {
    guests.values.map(\.record).filter { $0.host == nil && !$0.state.isOver }.compactMap(\.network)
      .filter { $0.family.id == family }
  }

  /// Gives the device VM its address, and the names of the family's VMs; later only if there are more.
  func tellNetwork(_ name: String, _ session: GuestSession) async throws {
    guard let card = guests[name]?.record.network else { return }
    let message = GuestMessage.Network(
      ipAddress: card.addressText, gateway: card.gatewayText, names: names(in: card.family))
    guard guests[name]?.namesTold != message.names else { return }
    try await session.setUp(message)
    guests[name]?.namesTold = message.names
  }

  /// Lines of /etc/hosts. Names of clones of the device VM are known before there are such clones.
  private func names(in family: Family) -> String {
    guard let plan = family.plan, let direct = family.directNumbers else { return "" }
    let known = guests.values.map(\.record).filter { $0.network?.family.id == family.id && !$0.state.isOver }
    let numbers = known.compactMap(\.network?.number).filter { direct.contains($0) }
    var count = Self.namesAtStart
    while count < numbers.max() ?? 0 { count *= 2 }
    var lines = ["\(plan.address(vmid: 0)!) \(family.parent)"]
    for record in known.sorted(by: { $0.name < $1.name }) {
      if let card = record.network, card.number > direct.upperBound, let address = card.address {
        lines.append("\(address) \(record.name)")
      }
    }
    for number in 1...min(count, direct.upperBound) {
      lines.append("\(plan.address(vmid: number)!) \(family.parent).\(number)")
    }
    var text = ""
    for line in lines where text.utf8.count + line.utf8.count < Self.namesLimit { text += line + "\n" }
    return text
  }

  // MARK: activate

  /// From the returned call's return on the VM may speak as itself, and as nobody else.
  func opening(of name: String) throws -> (@Sendable () throws -> Void)? {
    guard let card = guests[name]?.record.network else { return nil }
    guard let tap = taps[name], let address = card.address, let mac = card.mac else {
      throw ForkError(.failed, "it has no network card")
    }
    let network = try network.get()
    return { try network.bind(tap: tap, mac: mac, address: address) }
  }

  // MARK: end

  /// Takes the VM's tap away, together with others' that leave at the same time, and with the last one the network.
  func removeCard(of record: VMRecord) async {
    guard let card = record.network, let network = try? network.get() else { return }
    if let tap = taps.removeValue(forKey: record.name) {
      tapsLeaving.insert(tap)
      while tapsLeaving.contains(tap) {
        await takeTurn("taps that leave")
        let leaving = tapsLeaving
        await trying("take network cards away") {
          if !leaving.isEmpty { try network.removeTaps(leaving.sorted()) }
        }
        tapsLeaving.subtract(leaving)
        turns.leave("taps that leave")
      }
    }
    guard cards(of: card.family.id).isEmpty else {
      // Ports that led to it lead nowhere.
      if !card.forwards.isEmpty { try? await makeNetwork(card.family) }
      return
    }
    let turn = "network of \(card.family.id)"
    await takeTurn(turn)
    defer { turns.leave(turn) }
    guard cards(of: card.family.id).isEmpty, networksMade.removeValue(forKey: card.family.id) != nil else {
      return
    }
    let family = hostName(of: card.family)
    await trying("take the network of \(card.family.id) away") { try network.remove(family: family) }
  }

  private func trying(_ what: String, _ body: @escaping @Sendable () throws -> Void) async {
    do { try await workers.run(body) } catch { log.error("cannot \(what): \(error)") }
  }

  // MARK: the daemon's coming, other hosts' coming and going

  /// VMs that live speak on; what an earlier daemon left of others goes.
  func adoptNetworks() async {
    if let rows = try? await store.load(FamilyNumbers.self) {
      for row in rows { familyNumbers[row.id] = row }
    }
    let inUse = Set(
      guests.values.compactMap(\.record.network?.family.id) + snapshots.values.compactMap(\.network?.id))
    for id in familyNumbers.keys where !inUse.contains(id) {
      familyNumbers[id] = nil
      await persist("the end of family \(id)") { try await self.store.delete(family: id) }
    }
    guard let network = try? network.get() else { return }
    for record in guests.values.map(\.record) where record.host == nil && !record.state.isOver {
      do { _ = try await addCard(of: record) } catch { log.error("\(record.name) has no network: \(error)") }
    }
    // Also what could not be put right just now: a tap that has gone can not be given to a QEMU again.
    let alive = guests.values.map(\.record).filter { $0.host == nil && !$0.state.isOver && $0.network != nil }
    let (tag, names) = (networkTag + ".", Set(alive.map(\.name)))
    let ours = Set(alive.compactMap(\.network?.family).map { hostName(of: $0) })
    await trying("sweep networks") {
      let others = network.families.filter { !$0.hasPrefix(tag) }
      try network.sweep(keeping: ours.union(others))
      let left = ours.flatMap { network.taps(family: $0) }.filter { !names.contains($0.vm) }.map(\.name)
      if !left.isEmpty { try network.removeTaps(left) }
    }
  }

  /// Families follow the hosts that come and go; what somebody has changed of bridges and rules is put right.
  func tendNetworks() async {
    for round in 1... {
      do { try await Task.sleep(for: .seconds(1)) } catch { return }
      let families = guests.values.map(\.record).filter { $0.host == nil && !$0.state.isOver }
        .compactMap(\.network?.family)
      for family in Dictionary(families.map { ($0.id, $0) }, uniquingKeysWith: { first, _ in first }).values {
        do {
          try await makeNetwork(family, again: round.isMultiple(of: 30))
        } catch {
          log.error("the network of \(family.id) is not as it should be: \(error)")
        }
      }
    }
  }
}
