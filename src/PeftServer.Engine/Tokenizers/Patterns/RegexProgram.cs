namespace PeftServer.Engine.Tokenizers.Patterns;

internal enum RegexOp
{
    /// <summary>One character of a set.</summary>
    Set,

    /// <summary>A run of characters of a set.</summary>
    Run,

    /// <summary>The first branch that leads to a match.</summary>
    Choice,
    Jump,
    Anchor,
    Look,
    Atomic,

    /// <summary>Remembers where a turn of a loop began.</summary>
    LoopTurn,

    /// <summary>Leaves a loop whose turn matched nothing.</summary>
    LoopEnd,
    Match,
}

/// <summary>A step of a compiled pattern; which fields count depends on the operation.</summary>
internal sealed record RegexStep(RegexOp Op)
{
    public CharSet? Set { get; init; }

    public int Minimum { get; init; }

    public int Maximum { get; init; }

    public RepeatKind Kind { get; init; }

    /// <summary>Where each branch goes on, and which characters it can begin with (absent: any, or nothing).</summary>
    public (CharSet? First, int Target)[] Branches { get; set; } = [];

    public int Target { get; set; }

    public Anchor Anchor { get; init; }

    public RegexProgram? Body { get; init; }

    public bool IsBehind { get; init; }

    public bool IsNegative { get; init; }

    public int Register { get; init; }
}

/// <summary>A compiled pattern, or the body of a look-around or atomic group in one.</summary>
internal sealed record RegexProgram(RegexStep[] Steps, CharSet? First, int Registers);
