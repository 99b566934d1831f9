// sf-swift-block CALLS SIZE: a block of Swift that grows dictionaries, arrays and strings, throws and catches. Prints what
// it came to after each call; the output depends on nothing but its arguments.
//
// The block is `swift_block`: _silgen_name, since callers within the module pass a @_cdecl thunk by.
import Glibc

struct Refused: Error { var value: UInt64 }

final class Keeper {
  var sums: [UInt64: [UInt64]] = [:]
  var text = ""
}

nonisolated(unsafe) let keeper = Keeper()

func checked(_ value: UInt64) throws -> UInt64 {
  if value % 5 == 0 { throw Refused(value: value) }
  return value
}

@_silgen_name("swift_block") @inline(never)
public func swiftBlock(_ seed: UInt64, _ size: UInt64) -> UInt64 {
  var sum = seed
  for number in 0..<size {
    sum = sum &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    do {
      let value = try checked(sum >> 40)
      keeper.sums[value % 257, default: []].append(value)
    } catch let refused as Refused {
      sum ^= refused.value
      if number % 64 == 0 { keeper.text += "\(refused.value)," }
    } catch {
      return 0
    }
  }
  return sum
}

guard CommandLine.arguments.count == 3, let calls = UInt64(CommandLine.arguments[1]),
  let size = UInt64(CommandLine.arguments[2])
else {
  print("sf-swift-block CALLS SIZE")
  exit(2)
}
for call in 0..<calls { print(call, swiftBlock(call, size)) }
// Dictionaries of Swift are in another order each run: sums are taken in the order of keys.
var all: UInt64 = 0
for key in keeper.sums.keys.sorted() { all = keeper.sums[key]!.reduce(all &* 31 &+ key) { $0 &* 31 &+ $1 } }
print(keeper.sums.count, all, keeper.text.utf8.count)
