namespace PeftServer.Engine.Tokenizers.Patterns;

/// <summary>A part of a pattern.</summary>
internal abstract record RegexNode;

/// <summary>One character of a set.</summary>
internal sealed record SetNode(CharSet Set) : RegexNode;

internal sealed record SequenceNode(IReadOnlyList<RegexNode> Parts) : RegexNode;

internal sealed record ChoiceNode(IReadOnlyList<RegexNode> Branches) : RegexNode;

/// <summary><paramref name="Maximum"/> −1: without limit.</summary>
internal sealed record RepeatNode(RegexNode Body, int Minimum, int Maximum, RepeatKind Kind) : RegexNode;

internal enum RepeatKind
{
    Greedy,
    Lazy,
    Possessive,
}

/// <summary>Matches once and never gives back.</summary>
internal sealed record AtomicNode(RegexNode Body) : RegexNode;

internal sealed record LookNode(RegexNode Body, bool IsBehind, bool IsNegative) : RegexNode;

internal sealed record AnchorNode(Anchor Anchor) : RegexNode;

internal enum Anchor
{
    TextStart,
    TextEnd,
    TextEndOrLastNewline,
    LineStart,
    LineEnd,
    WordBoundary,
    NotWordBoundary,
}
