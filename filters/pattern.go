package filters

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
)

// compile compiles a regular expression within the budget, and takes from it
// what that costs.
func compile(pattern string, b *budget) (*regexp.Regexp, error) {
	if b.pattern -= len(pattern); b.pattern < 0 {
		return nil, fmt.Errorf("regular expressions of more than %d bytes together", MaxPattern)
	}
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return nil, refusal(err)
	}
	if b.program -= steps(tree, b.program+1); b.program < 0 {
		return nil, fmt.Errorf("regular expressions of more than %d steps together", MaxProgram)
	}
	re, err := regexp.Compile(pattern)
	if err != nil {
		return nil, refusal(err)
	}
	return re, nil
}

// refusal says why a regular expression does not compile.
func refusal(err error) error {
	var bad *syntax.Error
	if errors.As(err, &bad) {
		return fmt.Errorf("a regular expression with %s: %.64q", bad.Code, bad.Expr)
	}
	return fmt.Errorf("a regular expression that is refused: %w", err)
}

// steps estimates how many steps a regular expression is compiled to, and
// stops counting at most.
func steps(re *syntax.Regexp, most int) int {
	// Character classes share their table, but walking over it costs.
	n := 1 + len(re.Rune)
	if re.Op == syntax.OpCharClass {
		n = 1 + len(re.Rune)/16
	}
	for _, sub := range re.Sub {
		if n >= most {
			return most
		}
		n += steps(sub, most-n)
	}
	if re.Op == syntax.OpRepeat {
		n *= max(re.Min, re.Max, 1)
	}
	return min(n, most)
}
