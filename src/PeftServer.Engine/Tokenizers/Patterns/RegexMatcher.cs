using System.Text;
using PeftServer.Engine.Tokenizers.Unicode;

namespace PeftServer.Engine.Tokenizers.Patterns;

/// <summary>
/// Runs a compiled pattern by backtracking, with its own stack and a budget of steps: patterns come from strangers, and some
/// take time without end on the wrong text.
/// </summary>
internal sealed class RegexMatcher(string pattern)
{
    private Entry[] _stack = new Entry[64];
    private int _top;
    private int[] _registers = [];
    private long _budget;

    private enum EntryKind : byte
    {
        /// <summary>Try branch <c>Extra</c> and those after it.</summary>
        Branch,

        /// <summary>Give back characters of a run down to <c>Extra</c>.</summary>
        GiveBack,

        /// <summary>Take one more character into a lazy run, up to <c>Extra</c> more.</summary>
        TakeMore,

        /// <summary>Put back what register <c>Step</c> held.</summary>
        Register,
    }

    /// <summary>Sets how many steps the coming matches may take together.</summary>
    public void Allow(long steps) => _budget = steps;

    /// <summary>The leftmost match from <paramref name="from"/> on.</summary>
    public bool Find(RegexProgram program, ReadOnlySpan<char> text, int from, out int start, out int end)
    {
        for (start = from; start <= text.Length; start++)
        {
            if (program.First is { } first && first.MatchLength(text, start) == 0)
            {
                Spend();
                continue;
            }

            if (start > 0 && start < text.Length && char.IsLowSurrogate(text[start]) && char.IsHighSurrogate(text[start - 1]))
            {
                continue;
            }

            end = Run(program, text, start, target: -1);
            if (end >= 0)
            {
                return true;
            }
        }

        end = -1;
        return false;
    }

    /// <summary>Where the match at <paramref name="position"/> ends (at <paramref name="target"/> unless that is −1); −1 for no match.</summary>
    private int Run(RegexProgram program, ReadOnlySpan<char> text, int position, int target)
    {
        var bottom = _top;
        var outer = _registers;
        _registers = program.Registers > 0 ? new int[program.Registers] : [];
        var steps = program.Steps;
        var at = 0;
        var branch = 0;
        try
        {
            while (true)
            {
                Spend();
                var step = steps[at];
                var failed = false;
                switch (step.Op)
                {
                    case RegexOp.Set:
                        var length = step.Set!.MatchLength(text, position);
                        failed = length == 0;
                        position += length;
                        at++;
                        break;
                    case RegexOp.Run:
                        failed = !TakeRun(step, text, at, ref position);
                        at++;
                        break;
                    case RegexOp.Choice:
                        failed = !TakeBranch(step, text, position, at, branch, out at);
                        branch = 0;
                        break;
                    case RegexOp.Jump:
                        at = step.Target;
                        break;
                    case RegexOp.Anchor:
                        failed = !Holds(step.Anchor, text, position);
                        at++;
                        break;
                    case RegexOp.Look:
                        failed = Looks(step, text, position) == step.IsNegative;
                        at++;
                        break;
                    case RegexOp.Atomic:
                        position = Run(step.Body!, text, position, target: -1);
                        failed = position < 0;
                        at++;
                        break;
                    case RegexOp.LoopTurn:
                        Push(new Entry(EntryKind.Register, step.Register, _registers[step.Register], 0));
                        _registers[step.Register] = position;
                        at++;
                        break;
                    case RegexOp.LoopEnd:
                        at = _registers[step.Register] == position ? at + 1 : step.Target;
                        break;
                    default:
                        if (target < 0 || position == target)
                        {
                            return position;
                        }

                        failed = true;
                        break;
                }

                if (failed && !Backtrack(steps, text, bottom, out at, out position, out branch))
                {
                    return -1;
                }
            }
        }
        finally
        {
            _top = bottom;
            _registers = outer;
        }
    }

    private bool TakeRun(RegexStep step, ReadOnlySpan<char> text, int at, ref int position)
    {
        var set = step.Set!;
        var count = 0;
        var least = position;
        var limit = step.Kind is RepeatKind.Lazy ? step.Minimum : step.Maximum;
        for (int length; count < limit && (length = set.MatchLength(text, position)) > 0; count++)
        {
            position += length;
            least = count < step.Minimum ? position : least;
        }

        _budget -= count / 8; // far cheaper than steps
        if (count < step.Minimum)
        {
            return false;
        }

        if (step.Kind is RepeatKind.Greedy && position > least)
        {
            Push(new Entry(EntryKind.GiveBack, at + 1, position, least));
        }
        else if (step.Kind is RepeatKind.Lazy && count < step.Maximum)
        {
            Push(new Entry(EntryKind.TakeMore, at, position, step.Maximum - count));
        }

        return true;
    }

    private bool TakeBranch(RegexStep step, ReadOnlySpan<char> text, int position, int at, int from, out int target)
    {
        var branches = step.Branches;
        var taken = NextBranch(branches, text, position, from);
        if (taken == branches.Length)
        {
            target = at;
            return false;
        }

        if (NextBranch(branches, text, position, taken + 1) is var other && other < branches.Length)
        {
            Push(new Entry(EntryKind.Branch, at, position, other));
        }

        target = branches[taken].Target;
        return true;
    }

    private static int NextBranch((CharSet? First, int Target)[] branches, ReadOnlySpan<char> text, int position, int from)
    {
        while (from < branches.Length && branches[from].First is { } first && first.MatchLength(text, position) == 0)
        {
            from++;
        }

        return from;
    }

    private bool Backtrack(RegexStep[] steps, ReadOnlySpan<char> text, int bottom, out int at, out int position, out int branch)
    {
        branch = 0;
        while (_top > bottom)
        {
            Spend();
            ref var entry = ref _stack[--_top];
            (at, position) = (entry.Step, entry.Position);
            switch (entry.Kind)
            {
                case EntryKind.Branch:
                    branch = entry.Extra;
                    return true;
                case EntryKind.GiveBack:
                    position -= position >= 2 && char.IsLowSurrogate(text[position - 1]) && char.IsHighSurrogate(text[position - 2]) ? 2 : 1;
                    if (position > entry.Extra)
                    {
                        entry.Position = position;
                        _top++;
                    }

                    return true;
                case EntryKind.TakeMore when steps[at].Set!.MatchLength(text, position) is > 0 and var length:
                    position += length;
                    if (entry.Extra > 1)
                    {
                        (entry.Position, entry.Extra) = (position, entry.Extra - 1);
                        _top++;
                    }

                    at++;
                    return true;
                case EntryKind.Register:
                    _registers[entry.Step] = entry.Position;
                    break;
            }
        }

        (at, position) = (0, -1);
        return false;
    }

    private bool Looks(RegexStep step, ReadOnlySpan<char> text, int position)
    {
        if (!step.IsBehind)
        {
            return Run(step.Body!, text, position, target: -1) >= 0;
        }

        var start = position;
        for (var back = 0; back <= step.Maximum; back++)
        {
            if (back >= step.Minimum && Run(step.Body!, text, start, target: position) >= 0)
            {
                return true;
            }

            if (start == 0)
            {
                return false;
            }

            start -= start >= 2 && char.IsLowSurrogate(text[start - 1]) && char.IsHighSurrogate(text[start - 2]) ? 2 : 1;
        }

        return false;
    }

    private static bool Holds(Anchor anchor, ReadOnlySpan<char> text, int position) => anchor switch
    {
        Anchor.TextStart => position == 0,
        Anchor.TextEnd => position == text.Length,
        Anchor.TextEndOrLastNewline => position == text.Length || (position == text.Length - 1 && text[position] == '\n'),
        Anchor.LineStart => position == 0 || (text[position - 1] == '\n' && position < text.Length),
        Anchor.LineEnd => position == text.Length || text[position] == '\n',
        Anchor.WordBoundary => IsWordBefore(text, position) != IsWordAt(text, position),
        _ => IsWordBefore(text, position) == IsWordAt(text, position),
    };

    private static bool IsWordAt(ReadOnlySpan<char> text, int position) =>
        position < text.Length && Rune.DecodeFromUtf16(text[position..], out var rune, out _) is var _ && UnicodeClasses.IsWord(rune.Value);

    private static bool IsWordBefore(ReadOnlySpan<char> text, int position) =>
        position > 0 && Rune.DecodeLastFromUtf16(text[..position], out var rune, out _) is var _ && UnicodeClasses.IsWord(rune.Value);

    private void Spend()
    {
        if (--_budget < 0)
        {
            throw new TokenizerException($"The tokenizer's pattern \"{pattern}\" takes too long on this text.");
        }
    }

    private void Push(Entry entry)
    {
        if (_top == _stack.Length)
        {
            Array.Resize(ref _stack, _stack.Length * 2);
        }

        _stack[_top++] = entry;
    }

    private struct Entry(EntryKind kind, int step, int position, int extra)
    {
        public readonly EntryKind Kind = kind;
        public readonly int Step = step;
        public int Position = position;
        public int Extra = extra;
    }
}
