namespace PeftServer.Engine.Tokenizers.Patterns;

/// <summary>Turns the tree of a pattern into steps for <see cref="RegexMatcher"/>.</summary>
internal sealed class RegexCompiler
{
    private const int MaxSteps = 20_000;

    private readonly string _pattern;
    private readonly List<RegexStep> _steps = [];
    private int _registers;

    private RegexCompiler(string pattern) => _pattern = pattern;

    public static RegexProgram Compile(string pattern, RegexNode node)
    {
        var compiler = new RegexCompiler(pattern);
        compiler.Emit(node);
        compiler.Add(new RegexStep(RegexOp.Match));
        return new RegexProgram([.. compiler._steps], RegexShape.First(node), compiler._registers);
    }

    private void Emit(RegexNode node)
    {
        switch (node)
        {
            case SetNode set:
                Add(new RegexStep(RegexOp.Set) { Set = set.Set });
                break;
            case SequenceNode sequence:
                foreach (var part in sequence.Parts)
                {
                    Emit(part);
                }

                break;
            case ChoiceNode choice:
                EmitChoice(choice);
                break;
            case RepeatNode { Body: SetNode set } run:
                Add(new RegexStep(RegexOp.Run) { Set = set.Set, Minimum = run.Minimum, Maximum = run.Maximum < 0 ? int.MaxValue : run.Maximum, Kind = run.Kind });
                break;
            case RepeatNode { Kind: RepeatKind.Possessive } repeat:
                Emit(new AtomicNode(repeat with { Kind = RepeatKind.Greedy }));
                break;
            case RepeatNode repeat:
                EmitRepeat(repeat);
                break;
            case AtomicNode atomic:
                Add(new RegexStep(RegexOp.Atomic) { Body = Compile(_pattern, atomic.Body) });
                break;
            case LookNode look:
                EmitLook(look);
                break;
            case AnchorNode anchor:
                Add(new RegexStep(RegexOp.Anchor) { Anchor = anchor.Anchor });
                break;
        }
    }

    private void EmitChoice(ChoiceNode choice)
    {
        var start = Add(new RegexStep(RegexOp.Choice));
        var branches = new List<(CharSet? First, int Target)>();
        var ends = new List<RegexStep>();
        foreach (var branch in choice.Branches)
        {
            branches.Add((RegexShape.First(branch), _steps.Count));
            Emit(branch);
            ends.Add(Add(new RegexStep(RegexOp.Jump)));
        }

        start.Branches = [.. branches];
        ends.ForEach(end => end.Target = _steps.Count);
    }

    private void EmitRepeat(RepeatNode repeat)
    {
        for (var i = 0; i < repeat.Minimum; i++)
        {
            Emit(repeat.Body);
        }

        if (repeat.Maximum >= 0)
        {
            EmitOptional(repeat, repeat.Maximum - repeat.Minimum);
            return;
        }

        var register = _registers++;
        var top = _steps.Count;
        var choice = Add(new RegexStep(RegexOp.Choice));
        var body = _steps.Count;
        Add(new RegexStep(RegexOp.LoopTurn) { Register = register });
        Emit(repeat.Body);
        Add(new RegexStep(RegexOp.LoopEnd) { Register = register, Target = top });
        choice.Branches = Ordered(repeat.Kind, (RegexShape.First(repeat.Body), body), (null, _steps.Count));
    }

    private void EmitOptional(RepeatNode repeat, int times)
    {
        var choices = new List<(RegexStep Step, int Body)>();
        for (var i = 0; i < times; i++)
        {
            choices.Add((Add(new RegexStep(RegexOp.Choice)), _steps.Count));
            Emit(repeat.Body);
        }

        foreach (var (step, body) in choices)
        {
            step.Branches = Ordered(repeat.Kind, (RegexShape.First(repeat.Body), body), (null, _steps.Count));
        }
    }

    private static (CharSet? First, int Target)[] Ordered(RepeatKind kind, (CharSet? First, int Target) more, (CharSet? First, int Target) leave) =>
        kind is RepeatKind.Lazy ? [leave, more] : [more, leave];

    private void EmitLook(LookNode look)
    {
        var (minimum, maximum) = look.IsBehind ? RegexShape.Lengths(look.Body) : (0, 0);
        if (maximum > 255)
        {
            throw new TokenizerException($"tokenizer.json: the pattern \"{_pattern}\" looks behind without a limit, which is not supported.");
        }

        Add(new RegexStep(RegexOp.Look)
        {
            Body = Compile(_pattern, look.Body),
            IsBehind = look.IsBehind,
            IsNegative = look.IsNegative,
            Minimum = minimum,
            Maximum = maximum,
        });
    }

    private RegexStep Add(RegexStep step)
    {
        if (_steps.Count >= MaxSteps)
        {
            throw new TokenizerException($"tokenizer.json: the pattern \"{_pattern}\" is too large once its repetitions are written out.");
        }

        _steps.Add(step);
        return step;
    }
}

/// <summary>What can be said of a part of a pattern without running it.</summary>
internal static class RegexShape
{
    /// <summary>The characters that a match begins with; null where it may be empty or begin with a look-around.</summary>
    public static CharSet? First(RegexNode node) => node switch
    {
        SetNode set => set.Set,
        AtomicNode atomic => First(atomic.Body),
        RepeatNode { Minimum: > 0 } repeat => First(repeat.Body),
        SequenceNode { Parts: [var only] } => First(only),
        SequenceNode { Parts: [RepeatNode { Minimum: 0 } optional, ..] } sequence => Union([First(optional.Body), First(new SequenceNode([.. sequence.Parts.Skip(1)]))]),
        SequenceNode { Parts: [var first, ..] } => First(first),
        ChoiceNode choice => Union([.. choice.Branches.Select(First)]),
        _ => null,
    };

    /// <summary>Least and most characters of a match; the most is int.MaxValue where there is no limit.</summary>
    public static (int Minimum, int Maximum) Lengths(RegexNode node)
    {
        switch (node)
        {
            case SetNode:
                return (1, 1);
            case AtomicNode atomic:
                return Lengths(atomic.Body);
            case SequenceNode sequence:
                var parts = sequence.Parts.Select(Lengths).ToList();
                return (Sum(parts.Select(p => (long)p.Minimum)), Sum(parts.Select(p => (long)p.Maximum)));
            case ChoiceNode choice:
                var branches = choice.Branches.Select(Lengths).ToList();
                return (branches.Min(b => b.Minimum), branches.Max(b => b.Maximum));
            case RepeatNode repeat:
                var (minimum, maximum) = Lengths(repeat.Body);
                return (Sum([(long)minimum * repeat.Minimum]), repeat.Maximum < 0 ? (maximum == 0 ? 0 : int.MaxValue) : Sum([(long)maximum * repeat.Maximum]));
            default:
                return (0, 0);
        }
    }

    private static CharSet? Union(CharSet?[] sets) =>
        sets.Any(s => s is null) ? null : sets.Length == 1 ? sets[0] : new CharSet(c => sets.Any(s => s!.Contains(c)));

    private static int Sum(IEnumerable<long> lengths) => (int)Math.Min(lengths.Sum(), int.MaxValue);
}
