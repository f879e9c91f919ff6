// Package filters parses and matches filter expressions: small conditions on
// the fields of a record, as text that a user can type. It knows nothing of
// the records; they say what their fields are.
//
//	digest==sha256:1e1a…                     this content
//	labels.app==web,size>=10MiB              both hold
//	labels.containerd.io/gc.root             the label is there
//	createdat<24h                            older than a day
//	labels.version~=^v[12]\.                 a regular expression matches
//
// # Grammar
//
//	expression = [ selector { "," selector } ] .
//	selector   = path [ operator value ] .
//	path       = name { "." name } .
//	name       = word | quoted .
//	word       = ( letter | digit | "_" ) { letter | digit | "_" | mark } .
//	mark       = "-" | "/" .                             (after "labels." alone)
//	operator   = "==" | "!=" | "~=" | "<" | "<=" | ">" | ">=" .
//	value      = quoted | slashed | bare .
//	quoted     = `"` { rune | escape } `"` .
//	slashed    = "/" { rune | escape } "/" | "|" { rune | escape } "|" .
//	                                                     (after "~=" alone)
//	bare       = first { graphic rune but a comma or white space } .
//	first      = any rune but white space and , . = ! ~ " / | .
//	escape     = `\` ( "a" | "b" | "f" | "n" | "r" | "t" | "v" | `\` | the quote
//	           | 3 octal digits | "x" 2 hex digits | "u" 4 | "U" 8 ) .
//
// Letters and digits are those of ASCII. White space may stand before a name,
// an operator and a value, and nowhere else. A quoted or slashed text holds no
// line break. NUL, the replacement character U+FFFD and bytes that are not
// UTF-8 stand nowhere; escapes can write them. An operator is the longest run
// of the characters "=!~", so that "foo===" has none that is known.
//
// # Meaning
//
// A comma means that both sides hold. Of several expressions one has to hold;
// none at all, and the empty one, hold for everything.
//
// A path names a field; all that follows its first name is joined with dots, so
// that labels.a.b, labels."a.b" and labels.a."b" are the same label.
//
//	path          the field is there
//	path==value   it is there and equal
//	path!=value   it is not equal; a field that is not there counts as empty
//	path~=value   the regular expression (package regexp) matches somewhere in
//	              it; a field that is not there counts as empty
//	path<value    it is there and less; so for "<=", ">" and ">="
//
// So "is there, and is not x" is path,path!=x, and "is not there, or is empty"
// is path~=^$.
//
// # Order
//
// The value after "<", "<=", ">" or ">=" is one of these, and anything else is
// an error:
//
//	10  -3  1.5           a number, to nine decimals
//	10MB  1.5GiB  4k      a number with a unit: B; k, M, G, T, P, E for powers
//	                      of 1000, with an i behind for powers of 1024; B may
//	                      follow; case does not matter
//	2026-01-31T12:00:00Z  a time in RFC 3339
//	2026-01-31  2026-01   the beginning of a day, month or year in UTC
//	24h  1d12h  2w        an age: a time so long ago, counted from when the
//	                      expression was parsed; ns, us, ms, s, m, h, d (24
//	                      hours), w
//	+1h                   a time to come
//
// A field that is text is read as a number with or without unit, or as a time
// or day in full. Where field and value are not of one kind, nothing matches.
// What can be read as two kinds (5m, 2026) is taken as that of the field.
// Fields that a record declares as numbers or times are compared as such by
// "==" and "!=" too.
//
// # Bounds
//
// Expressions come from outside, so their length, number and regular
// expressions have bounds: see the constants. Matching allocates nothing, save
// where a record does so to show a field as text.
package filters
