using System.Runtime.CompilerServices;

namespace PeftServer.Engine.Tokenizers.ChatTemplates;

/// <summary>
/// What one rendering writes, and what it may use: strangers write templates, so steps, depth and text are counted, and
/// what goes beyond is an error.
/// </summary>
internal sealed class RenderState(TimeProvider clock)
{
    /// <summary>Evaluations, plus one for every four characters made. The longest real templates use some thousands a message.</summary>
    public const long MaxSteps = 10_000_000;

    /// <summary>Longest single text, in characters.</summary>
    public const int MaxText = 32_000_000;

    /// <summary>Macros within macros.</summary>
    public const int MaxDepth = 100;

    private TextBuilder _output = new();
    private long _steps;
    private int _depth;

    public TimeProvider Clock => clock;

    public void Step(long cost = 1)
    {
        CheckStack();
        _steps += cost;
        if (_steps > MaxSteps)
        {
            throw new TemplateException("The chat template does more work than a template may. Look for a loop without an end.");
        }
    }

    /// <summary>Ends what nests so deep that the thread's stack would not hold it.</summary>
    public static void CheckStack()
    {
        if (!RuntimeHelpers.TryEnsureSufficientExecutionStack())
        {
            throw new TemplateException("The chat template nests its expressions or values too deep.");
        }
    }

    /// <summary>Accounts for a text of <paramref name="length"/> characters that is about to be made.</summary>
    public void Text(long length)
    {
        if (length > MaxText)
        {
            throw new TemplateException($"The chat template makes a text of {length} characters; {MaxText} are allowed.");
        }

        Step(length / 4);
    }

    public void Write(TextValue text)
    {
        Text(_output.Length + (long)text.Length > MaxText ? long.MaxValue : text.Length);
        _output.Append(text);
    }

    public TextValue Capture(Action body)
    {
        var outer = _output;
        _output = new TextBuilder();
        try
        {
            using var depth = Enter();
            body();
            return _output.Finish();
        }
        finally
        {
            _output = outer;
        }
    }

    /// <summary>Goes one level deeper until the result is disposed.</summary>
    public Depth Enter()
    {
        if (++_depth > MaxDepth)
        {
            _depth--;
            throw new TemplateException("The chat template calls macros within macros without an end.");
        }

        return new Depth(this);
    }

    public TextValue Finish() => _output.Finish();

    internal readonly ref struct Depth(RenderState state)
    {
        public void Dispose() => state._depth--;
    }
}
