import CloneNetwork
import Foundation
import Wire

/// Who gets which address of a family: with the ticket, before there are clones.
extension ForkService {
  /// Cards for new clones, whose names end with these numbers.
  func cards(for source: CloneSource, names: [Int]) async throws -> [NetworkCard?] {
    guard let family = source.family else { return names.map { _ in nil } }
    let numbers = source.parent == family.parent ? names : try await reserveNumbers(names.count, of: family)
    return numbers.map { NetworkCard(family: family, number: $0) }
  }

  /// Free numbers for names of clones; those of a device VM's clones are their addresses too. Throws `.refused` if a family
  /// has no addresses for so many.
  func freeNumbers(_ count: Int, for source: CloneSource) throws(ForkError) -> [Int] {
    let direct = source.family.flatMap { source.parent == $0.parent ? $0.directNumbers : nil }
    let numbers = (direct ?? 1...Int.max).lazy.filter { self.isFree("\(source.parent).\($0)") }.prefix(count)
    guard numbers.count == count else {
      throw ForkError(
        .refused,
        "cannot fork \(source.parent): its subnet \(source.family?.subnet ?? "") has addresses for \(direct?.upperBound ?? 0) clones. Start it with a larger --subnet."
      )
    }
    return Array(numbers)
  }

  private func isFree(_ name: String) -> Bool { guests[name] == nil && hypervisor.isFree(name) }

  /// Numbers for clones of clones: of the family's home, since their own homes know nothing of each other.
  private func reserveNumbers(_ count: Int, of family: Family) async throws -> [Int] {
    if await family.home == cluster.host { return try await giveNumbers(count, family: family.id) }
    let request = Snowfork_V1_ReserveNumbersRequest.with {
      $0.family = family.id
      $0.count = UInt32(count)
    }
    do {
      return try await cluster.reach(family.home).peer.reserveNumbers(request).numbers.map { Int($0) }
    } catch {
      throw Self.explain(error, host: family.home)
    }
  }

  func giveNumbers(_ count: Int, family id: String) async throws -> [Int] {
    guard var numbers = familyNumbers[id] else {
      throw ForkError(
        .notFound, "there is no family \(id): its device VM has ended and this daemon has forgotten it.")
    }
    guard (1...Self.ticketLimit).contains(count) else {
      throw ForkError(.invalid, "\(count) addresses at once.")
    }
    guard let given = numbers.take(count) else {
      throw ForkError(
        .refused,
        "cannot fork a clone: its subnet has no addresses for \(count) clones of clones more. Start its device VM with a larger --subnet."
      )
    }
    familyNumbers[id] = numbers
    let changed = numbers
    await persist("the addresses of \(id)") { try await self.store.save(changed) }
    return Array(given)
  }
}
