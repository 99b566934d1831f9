extension VMDescriptor {
  private typealias Format = DescriptorFormat

  /// Reads what `encode()` wrote.
  ///
  /// On failure nothing was allocated but what the error holds, unless the checksum was right.
  public static func decode(
    _ bytes: [UInt8], limits: DescriptorLimits = .standard
  ) throws(DescriptorError) -> VMDescriptor {
    // As a Result: `withUnsafeBytes` rethrows an untyped error.
    let result = bytes.withUnsafeBytes { buffer -> Result<VMDescriptor, DescriptorError> in
      Result { () throws(DescriptorError) in try decode(buffer, limits: limits) }
    }
    return try result.get()
  }

  /// The same of borrowed bytes, e.g. a mapped file. They must not change meanwhile.
  public static func decode(
    _ bytes: UnsafeRawBufferPointer, limits: DescriptorLimits = .standard
  ) throws(DescriptorError) -> VMDescriptor {
    let sectionCount = try checkHeader(bytes, limits: limits)
    let sections = try readTable(bytes, count: sectionCount)
    return try VMDescriptor(sections: sections, limits: limits)
  }

  /// Everything up to the checksum. Returns the number of sections.
  private static func checkHeader(
    _ bytes: UnsafeRawBufferPointer, limits: DescriptorLimits
  ) throws(DescriptorError) -> Int {
    let actual = UInt64(bytes.count)
    guard bytes.prefix(Format.magic.count).elementsEqual(Format.magic.prefix(bytes.count)) else {
      throw .badMagic
    }
    guard bytes.count >= Format.headerBytes else {
      throw .truncated(expectedBytes: UInt64(Format.headerBytes), actualBytes: actual)
    }
    var reader = ByteReader(UnsafeRawBufferPointer(rebasing: bytes[Format.magic.count...]))
    let version: UInt16 = try reader.integer()
    guard version == Format.version else { throw .version(found: version, supported: Format.version) }
    let headerBytes: UInt16 = try reader.integer()
    let sectionCount: UInt32 = try reader.integer()
    let totalBytes: UInt64 = try reader.integer()
    let reserved: UInt64 = try reader.integer()

    guard headerBytes == Format.headerBytes, reserved == 0 else {
      throw .malformed("the header is not that of version \(version)")
    }
    guard totalBytes <= limits.totalBytes else {
      throw .sizes("\(totalBytes) bytes, and \(limits.totalBytes) are the most that is accepted")
    }
    guard totalBytes <= actual else { throw .truncated(expectedBytes: totalBytes, actualBytes: actual) }
    guard totalBytes == actual else {
      throw .sizes("it says \(totalBytes) bytes and \(actual) are there")
    }
    guard sectionCount <= Format.sectionsMax,
      Format.headerBytes + Int(sectionCount) * Format.tableEntryBytes <= bytes.count
    else { throw .sizes("\(sectionCount) sections") }

    let written = bytes[Format.checksumOffset..<Format.headerBytes]
    guard written.elementsEqual(Format.checksum(of: bytes)) else { throw .checksum(part: "descriptor") }
    return Int(sectionCount)
  }

  /// The known sections, their places and digests found right.
  private static func readTable(
    _ bytes: UnsafeRawBufferPointer, count: Int
  ) throws(DescriptorError) -> [Format.SectionType: UnsafeRawBufferPointer] {
    var reader = ByteReader(UnsafeRawBufferPointer(rebasing: bytes[Format.headerBytes...]))
    var sections: [Format.SectionType: UnsafeRawBufferPointer] = [:]
    var end = UInt64(Format.headerBytes + count * Format.tableEntryBytes)
    for _ in 0..<count {
      let rawType: UInt32 = try reader.integer()
      let flags: UInt32 = try reader.integer()
      let offset: UInt64 = try reader.integer()
      let length: UInt64 = try reader.integer()
      let digest = try reader.bytes(Format.digestBytes)
      let reserved: UInt64 = try reader.integer()
      guard reserved == 0 else { throw .malformed("a table entry is not that of version \(Format.version)") }
      guard offset == end, length <= UInt64(bytes.count) - offset else {
        throw .sizes("section type \(rawType) lies at \(offset), \(length) bytes long")
      }
      end += length
      guard let type = Format.SectionType(rawValue: rawType) else {
        if flags & Format.required != 0 { throw .unknownSection(type: rawType) }
        continue
      }
      let body = UnsafeRawBufferPointer(rebasing: bytes[Int(offset)..<Int(end)])
      guard digest == Format.digest(of: body) else { throw .checksum(part: type.name) }
      guard sections.updateValue(body, forKey: type) == nil else {
        throw .malformed("two sections of type \(rawType)")
      }
    }
    guard end == UInt64(bytes.count) else { throw .sizes("bytes after the last section") }
    return sections
  }
}

extension VMDescriptor {
  private init(
    sections: [Format.SectionType: UnsafeRawBufferPointer], limits: DescriptorLimits
  ) throws(DescriptorError) {
    func required(_ type: Format.SectionType) throws(DescriptorError) -> UnsafeRawBufferPointer {
      guard let body = sections[type] else { throw .malformed("the \(type.name) is missing") }
      return body
    }

    var metadata = ByteReader(try required(.metadata))
    createdMicroseconds = try metadata.integer()
    ramBytes = try metadata.integer()
    vcpus = try metadata.integer()
    snapshot = try metadata.string("the snapshot's name")
    parent = try metadata.string("the parent's name")
    image = try metadata.string("the image's name")
    compatibility = try metadata.string("the compatibility")
    kernelCommandLine = try metadata.string("the kernel's command line")
    try metadata.requireEnd(.metadata)
    guard ramBytes > 0, ramBytes <= limits.ramBytes, ramBytes.isMultiple(of: Self.pageBytes) else {
      throw .sizes("RAM of \(ramBytes) bytes")
    }
    guard vcpus > 0, vcpus <= limits.vcpus else { throw .sizes("\(vcpus) virtual CPUs") }

    var diskReader = ByteReader(try required(.disks))
    disks = try Self.decodeDisks(&diskReader, limits: limits)

    let pages = ramBytes / Self.pageBytes
    switch (sections[.pageRuns], sections[.pageBitmap]) {
    case (let runs?, nil):
      var reader = ByteReader(runs)
      existingPages = try PageRunCoding.decodeRuns(&reader, pages: pages)
    case (nil, let bitmap?):
      var reader = ByteReader(bitmap)
      existingPages = try PageRunCoding.decodeBitmap(&reader, pages: pages)
    case (nil, nil): throw .malformed("the RAM layout is missing")
    case (_?, _?): throw .malformed("two RAM layouts")
    }

    let state = try required(.deviceState)
    guard UInt64(state.count) <= limits.deviceStateBytes else {
      throw .sizes("a device state of \(state.count) bytes")
    }
    deviceState = Array(state)

    if let body = sections[.network] {
      var reader = ByteReader(body)
      network = NetworkIdentity(
        mac: try reader.string("the MAC address"), ip: try reader.string("the IP address"))
      try reader.requireEnd(.network)
    }
  }

  private static func decodeDisks(
    _ reader: inout ByteReader, limits: DescriptorLimits
  ) throws(DescriptorError) -> [Disk] {
    let count: UInt32 = try reader.integer()
    guard count <= limits.disks else { throw .sizes("\(count) disks") }
    var disks: [Disk] = []
    for _ in 0..<count {
      let virtualBytes: UInt64 = try reader.integer()
      let layerCount: UInt32 = try reader.integer()
      guard layerCount <= limits.layersOfADisk else { throw .sizes("\(layerCount) layers of a disk") }
      var layers: [DiskLayer] = []
      for _ in 0..<layerCount {
        layers.append(
          DiskLayer(
            id: try reader.string("a layer's id"), format: try reader.string("a layer's format"),
            host: try reader.string("a layer's host")))
      }
      disks.append(Disk(virtualBytes: virtualBytes, layers: layers))
    }
    try reader.requireEnd(.disks)
    return disks
  }
}

extension ByteReader {
  fileprivate func requireEnd(_ type: DescriptorFormat.SectionType) throws(DescriptorError) {
    guard remaining == 0 else { throw .sizes("\(remaining) bytes too many in the \(type.name)") }
  }
}
