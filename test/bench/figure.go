package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
)

// figure is one measured value: the median of its rounds.
type figure struct {
	Name   string  `json:"name"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Rounds int     `json:"rounds"`
	// Min and Max are the spread of the rounds.
	Min float64 `json:"min"`
	Max float64 `json:"max"`
	// Note tells what the value is made of.
	Note string `json:"note,omitempty"`
}

func newFigure(name, unit string, rounds []float64, note string) figure {
	return figure{Name: name, Unit: unit, Rounds: len(rounds), Note: note,
		Value: short(median(rounds)), Min: short(slices.Min(rounds)), Max: short(slices.Max(rounds))}
}

// ratio is a figure of how many times as long ours takes. The durations of a
// round stand at the same place.
func ratio(name string, ours, theirs []float64, unit string) figure {
	rounds := make([]float64, len(ours))
	for i := range ours {
		rounds[i] = ours[i] / theirs[i]
	}
	return newFigure(name, "ratio", rounds,
		fmt.Sprintf("medians %v and %v %s", short(median(ours)), short(median(theirs)), unit))
}

func (f figure) text(w io.Writer) error {
	note := f.Note
	if note != "" {
		note = "; " + note
	}
	rounds := "rounds"
	if f.Rounds == 1 {
		rounds = "round"
	}
	_, err := fmt.Fprintf(w, "BENCH %s %v %s\n# %d %s, %v to %v%s\n", f.Name, f.Value, f.Unit, f.Rounds, rounds, f.Min, f.Max, note)
	return err
}

func (f figure) json(w io.Writer) error { return json.NewEncoder(w).Encode(f) }

// median of at least one value.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// short rounds to four digits; more would be noise.
func short(v float64) float64 {
	if v == 0 || math.IsInf(v, 0) || math.IsNaN(v) {
		return v
	}
	scale := math.Pow(10, 3-math.Floor(math.Log10(math.Abs(v))))
	return math.Round(v*scale) / scale
}
