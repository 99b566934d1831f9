/// What is ours is known by its name: three letters, and twelve that follow from the family, or from family and VM.
///
///     sfb…  bridge of a family          sfv…  the router's port on the bridge
///     sfx…  its VXLAN port              sfh…  the router's way to the host
///     sft…  tap of a VM                 sfr-N-…  the router's network namespace, N that of its host
enum InterfaceNames {
  enum Kind: String, CaseIterable {
    case bridge = "sfb"
    case vxlan = "sfx"
    case tap = "sft"
    case routerPort = "sfv"
    case routerLink = "sfh"
  }

  private static let digits = Array("abcdefghijklmnopqrstuvwxyz234567".unicodeScalars)

  /// Twelve letters of 60 bits. Two families of one host that had the same would be told apart by the alias, and the
  /// second refused.
  static func suffix(_ parts: String...) -> String {
    var hash: UInt64 = 0xCBF2_9CE4_8422_2325
    for part in parts {
      for byte in Array(part.utf8) + [0] { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01B3 }
    }
    // FNV-1a spreads its last bytes little: finish as SplitMix64 does.
    hash = (hash ^ hash >> 30) &* 0xBF58_476D_1CE4_E5B9
    hash = (hash ^ hash >> 27) &* 0x94D0_49BB_1331_11EB
    hash ^= hash >> 31
    var text = String.UnicodeScalarView()
    for index in 0..<12 { text.append(digits[Int(hash >> (5 * UInt64(index)) & 31)]) }
    return String(text)
  }

  /// An interface of a family, other than a tap.
  static func name(_ kind: Kind, family: String) -> String { kind.rawValue + suffix(family) }

  static func tap(vm: String, family: String) -> String { Kind.tap.rawValue + suffix(family, vm) }

  /// What sort of ours it is; nil: not ours.
  static func kind(of name: String) -> Kind? {
    guard name.utf8.count == 15, name.dropFirst(3).unicodeScalars.allSatisfy(digits.contains) else {
      return nil
    }
    return Kind(rawValue: String(name.prefix(3)))
  }

  /// The prefix of all router namespaces of one host.
  static func routerPrefix(host number: UInt64) -> String { "sfr-\(number)-" }

  // MARK: aliases, as `ip link` shows them

  /// `detail`: of a tap the VM, of a router's link the family's subnet.
  static func alias(family: String, _ detail: String? = nil) -> String {
    "snowfork \(family)" + (detail.map { " \($0)" } ?? "")
  }

  /// Whose it is; nil: half-made, or not ours.
  static func owner(alias: String?) -> (family: String, detail: String?)? {
    let words = (alias ?? "").split(separator: " ", omittingEmptySubsequences: false).map(String.init)
    guard words.count == 2 || words.count == 3, words[0] == "snowfork" else { return nil }
    return (words[1], words.count == 3 ? words[2] : nil)
  }
}
