using System.Globalization;
using System.Numerics;
using System.Text.Json;

namespace PeftServer.Engine.Tokenizers.ChatTemplates;

// The values of the template language are null (none), bool, long, BigInteger (from data, to be printed), double, TextValue
// and the types below.

/// <summary>A list or a tuple. Templates cannot change one.</summary>
internal sealed class ListValue(IReadOnlyList<object?> items, bool isTuple = false)
{
    public IReadOnlyList<object?> Items => items;

    public bool IsTuple => isTuple;
}

/// <summary>A mapping in order of insertion.</summary>
internal sealed class DictValue
{
    private readonly Dictionary<object, int> _index = new(ValueEquality.Instance);
    private readonly List<KeyValuePair<object?, object?>> _entries = [];

    public IReadOnlyList<KeyValuePair<object?, object?>> Entries => _entries;

    public int Count => _entries.Count;

    public void Set(object? key, object? value)
    {
        var boxed = key ?? DBNull.Value;
        if (_index.TryGetValue(boxed, out var at))
        {
            _entries[at] = new(_entries[at].Key, value);
        }
        else
        {
            _index[boxed] = _entries.Count;
            _entries.Add(new(key, value));
        }
    }

    public bool TryGet(object? key, out object? value)
    {
        var found = _index.TryGetValue(key ?? DBNull.Value, out var at);
        value = found ? _entries[at].Value : null;
        return found;
    }

    public bool TryGet(string key, out object? value) => TryGet(TextValue.Own(key), out value);
}

/// <summary>What <c>namespace()</c> makes: the one thing whose attributes a template may set, also from inside a loop.</summary>
internal sealed class NamespaceValue
{
    public Dictionary<string, object?> Attributes { get; } = new(StringComparer.Ordinal);
}

/// <summary>A name that nobody set, or an attribute that is not there: prints as nothing and is an error in most other uses.</summary>
internal sealed class UndefinedValue(string description)
{
    public TemplateException Error() => new(description);
}

/// <summary>Something a template can call.</summary>
internal abstract class CallableValue
{
    public abstract object? Call(CallArguments arguments, RenderState state);
}

/// <summary>A function of the host, or a method bound to its object.</summary>
internal sealed class FunctionValue(string name, Func<CallArguments, RenderState, object?> body) : CallableValue
{
    public string Name => name;

    public override object? Call(CallArguments arguments, RenderState state) => body(arguments, state);
}

/// <summary>An object of the host whose attributes templates read: <c>loop</c>, <c>cycler</c>.</summary>
internal interface IAttributes
{
    bool TryGetAttribute(string name, out object? value);
}

/// <summary>Python's idea of equal keys: 1, 1.0 and true are one key.</summary>
internal sealed class ValueEquality : IEqualityComparer<object>
{
    public static readonly ValueEquality Instance = new();

    public new bool Equals(object? x, object? y) => Operators.AreEqual(x, y);

    public int GetHashCode(object obj) => obj switch
    {
        bool b => (b ? 1.0 : 0.0).GetHashCode(),
        long n => ((double)n).GetHashCode(),
        BigInteger n => ((double)n).GetHashCode(),
        double d => d.GetHashCode(),
        TextValue t => t.GetHashCode(),
        ListValue { IsTuple: true } t => t.Items.Count,
        ListValue => throw new TemplateException("unhashable type: 'list'"),
        DictValue => throw new TemplateException("unhashable type: 'dict'"),
        _ => obj.GetHashCode(),
    };
}

/// <summary>JSON as template values.</summary>
internal static class JsonValues
{
    public static object? From(JsonElement element, Provenance provenance) => element.ValueKind switch
    {
        JsonValueKind.String => new TextValue(Text(element), provenance),
        JsonValueKind.Number => Number(element),
        JsonValueKind.True => true,
        JsonValueKind.False => false,
        JsonValueKind.Array => new ListValue([.. element.EnumerateArray().Select(e => From(e, provenance))]),
        JsonValueKind.Object => Object(element, _ => provenance),
        _ => null,
    };

    /// <summary>A string of JSON; half a surrogate pair is no text and an error.</summary>
    public static string Text(JsonElement element)
    {
        try
        {
            return element.GetString()!;
        }
        catch (InvalidOperationException)
        {
            throw new TemplateException("A text of the chat holds half of a surrogate pair (\\ud800 to \\udfff without its other half).");
        }
    }

    /// <summary>A message: all its words are content of message <paramref name="index"/>, except its role.</summary>
    public static DictValue Message(JsonElement message, int index) =>
        Object(message, name => new Provenance(name == "role" ? Provenance.Data : index));

    private static DictValue Object(JsonElement element, Func<string, Provenance> provenance)
    {
        var dict = new DictValue();
        foreach (var property in element.EnumerateObject())
        {
            var name = NameOf(property);
            var whose = provenance(name);
            dict.Set(new TextValue(name, whose), From(property.Value, whose));
        }

        return dict;
    }

    private static string NameOf(JsonProperty property)
    {
        try
        {
            return property.Name;
        }
        catch (InvalidOperationException)
        {
            throw new TemplateException("A field of the chat has half of a surrogate pair in its name.");
        }
    }

    private static object Number(JsonElement element)
    {
        if (element.TryGetInt64(out var number))
        {
            return number;
        }

        var text = element.GetRawText();
        return text.AsSpan().ContainsAny('.', 'e', 'E')
            ? element.GetDouble()
            : BigInteger.Parse(text, NumberStyles.AllowLeadingSign, CultureInfo.InvariantCulture);
    }
}
