using System.Collections;
using System.Text.Json;
using System.Text.Json.Serialization.Metadata;
using PeftServer.Engine;

namespace PeftServer.Core.Http;

/// <summary>
/// Compares a JSON document with the type it is meant for, before it is read: unknown fields (with the name that was
/// meant), missing ones, wrong types. A serializer stops at the first of them; this finds all.
/// </summary>
public static class JsonShape
{
    private static readonly string[] PositionMarks = [" Path: ", " LineNumber: "];

    public static FaultList Faults(JsonElement document, JsonTypeInfo type)
    {
        var faults = new FaultList();
        Check(document, type, path: "", faults);
        return faults;
    }

    /// <summary>The serializer ends its messages with a path and a position of its own; ours stand elsewhere.</summary>
    public static string WithoutPosition(string message)
    {
        var ends = PositionMarks.Select(mark => message.IndexOf(mark, StringComparison.Ordinal)).Where(at => at >= 0);
        return message[..ends.DefaultIfEmpty(message.Length).Min()];
    }

    private static void Check(JsonElement value, JsonTypeInfo type, string path, FaultList faults)
    {
        if (type.Kind is not JsonTypeInfoKind.Object)
        {
            CheckLeaf(value, type, path, faults);
        }
        else if (value.ValueKind is not JsonValueKind.Object)
        {
            faults.Add(() => new($"{Name(path)} must be an object, not {Describe(value)}.", Param(path), "invalid_type"));
        }
        else if (Concrete(value, type, path, faults) is { } concrete)
        {
            CheckFields(value, concrete, type.PolymorphismOptions?.TypeDiscriminatorPropertyName, path, faults);
        }
    }

    private static void CheckFields(JsonElement value, JsonTypeInfo type, string? discriminator, string path, FaultList faults)
    {
        var fields = type.Properties.Where(property => property.Set is not null).ToDictionary(property => property.Name);
        foreach (var member in value.EnumerateObject())
        {
            var memberPath = Join(path, Short(member.Name));
            if (fields.TryGetValue(member.Name, out var field))
            {
                CheckMember(member.Value, field, type, memberPath, faults);
            }
            else if (member.Name != discriminator)
            {
                faults.Add(() => new($"Unknown field '{memberPath}'.{Hint(member.Name, fields, type, path)}", memberPath, "unknown_parameter"));
            }
        }

        foreach (var field in fields.Values.Where(field => field.IsRequired && !value.TryGetProperty(field.Name, out _)))
        {
            faults.Add(() => new($"'{Join(path, field.Name)}' is missing.", Join(path, field.Name), "missing_required_parameter"));
        }
    }

    private static void CheckMember(JsonElement value, JsonPropertyInfo field, JsonTypeInfo owner, string path, FaultList faults)
    {
        if (value.ValueKind is not JsonValueKind.Null)
        {
            Check(value, owner.Options.GetTypeInfo(field.PropertyType), path, faults);
        }
        else if (!field.IsSetNullable || (field.PropertyType.IsValueType && Nullable.GetUnderlyingType(field.PropertyType) is null))
        {
            faults.Add(() => new($"'{path}' must not be null. Leave it out to have its default.", path, "invalid_type"));
        }
    }

    private static void CheckLeaf(JsonElement value, JsonTypeInfo type, string path, FaultList faults)
    {
        if (Unstorable(value, path) is { } fault)
        {
            faults.Add(() => fault);
            return;
        }

        try
        {
            value.Deserialize(type);
        }
        catch (JsonException e)
        {
            var inner = Join(path, (e.Path ?? "$").TrimStart('$').TrimStart('.'));
            var message = e.Message.StartsWith("The JSON value could not be converted", StringComparison.Ordinal)
                ? $"{Name(inner)} must be {Expected(type.Type, value)}, not {Describe(value)}."
                : $"{Name(inner)}: {WithoutPosition(e.Message)}";
            faults.Add(() => new(message, Param(inner), "invalid_type"));
        }
    }

    // What JSON can write and the database cannot keep, anywhere in the value.
    private static ErrorDetail? Unstorable(JsonElement value, string path) => value.ValueKind switch
    {
        JsonValueKind.Object => value.EnumerateObject()
            .Select(member => UnstorableText(member.Name, path) ?? Unstorable(member.Value, Join(path, Short(member.Name))))
            .FirstOrDefault(fault => fault is not null),
        JsonValueKind.Array => value.EnumerateArray()
            .Select((item, index) => Unstorable(item, $"{path}[{index}]")).FirstOrDefault(fault => fault is not null),
        JsonValueKind.String => UnstorableText(value.GetString()!, path),
        JsonValueKind.Number when !double.IsFinite(value.GetDouble()) =>
            new($"{Name(path)} is {Short(value.GetRawText())}, which is beyond the range of numbers.", Param(path), "invalid_number"),
        _ => null,
    };

    private static ErrorDetail? UnstorableText(string text, string path) => text.Contains('\0', StringComparison.Ordinal)
        ? new($"{Name(path)} holds the character U+0000, which no text may hold.", Param(path), "invalid_string")
        : null;

    // A polymorphic object says by its discriminator which fields it has.
    private static JsonTypeInfo? Concrete(JsonElement value, JsonTypeInfo type, string path, FaultList faults)
    {
        if (type.PolymorphismOptions is not { } options)
        {
            return type;
        }

        var name = options.TypeDiscriminatorPropertyName;
        var field = Join(path, name);
        var known = options.DerivedTypes.Select(derived => (string)derived.TypeDiscriminator!).ToList();
        if (!value.TryGetProperty(name, out var discriminator) || discriminator.ValueKind is not JsonValueKind.String)
        {
            faults.Add(() => new($"'{field}' is missing. It is one of {string.Join(", ", known)}.", field, "missing_required_parameter"));
            return null;
        }

        var chosen = discriminator.GetString()!;
        if (options.DerivedTypes.FirstOrDefault(derived => (string)derived.TypeDiscriminator! == chosen).DerivedType is { } concrete)
        {
            return type.Options.GetTypeInfo(concrete);
        }

        faults.Add(() => new(
            $"'{field}' is '{Short(chosen)}', which this server does not know.{NearestName.Hint(chosen, known)}", field, "unsupported_value"));
        return null;
    }

    private static string Hint(string name, IReadOnlyDictionary<string, JsonPropertyInfo> fields, JsonTypeInfo owner, string path) =>
        fields.Values.FirstOrDefault(field => Fields(owner.Options.GetTypeInfo(field.PropertyType)).Contains(name)) is { } holder
            ? $" Did you mean '{Join(Join(path, holder.Name), name)}'?"
            : NearestName.Hint(name, [.. fields.Keys]);

    private static IEnumerable<string> Fields(JsonTypeInfo type) =>
        type.Kind is not JsonTypeInfoKind.Object ? []
        : type.PolymorphismOptions is { } options
            ? options.DerivedTypes.SelectMany(derived => type.Options.GetTypeInfo(derived.DerivedType).Properties).Select(property => property.Name)
            : type.Properties.Select(property => property.Name);

    private static string Expected(Type type, JsonElement value)
    {
        type = Nullable.GetUnderlyingType(type) ?? type;
        return type switch
        {
            { IsEnum: true } => ExpectedName(type, value),
            _ when type == typeof(string) => "a string",
            _ when type == typeof(bool) => "true or false",
            _ when type == typeof(int) || type == typeof(long) => "a whole number",
            _ when type == typeof(double) || type == typeof(float) => "a number",
            _ when type.Name.Contains("Dictionary", StringComparison.Ordinal) => "an object",
            _ when typeof(IEnumerable).IsAssignableFrom(type) => "a list",
            _ => "of another type",
        };
    }

    private static string ExpectedName(Type type, JsonElement value)
    {
        var names = Enum.GetValues(type).Cast<object>()
            .Select(name => JsonSerializer.Serialize(name, type, PeftJson.Options).Trim('"')).ToList();
        var nearest = value.ValueKind is JsonValueKind.String ? NearestName.Of(value.GetString()!, names) : null;
        return $"one of {string.Join(", ", names)}{(nearest is null ? "" : $" (did you mean '{nearest}'?)")}";
    }

    private static string Describe(JsonElement value) => value.ValueKind switch
    {
        JsonValueKind.Object => "an object",
        JsonValueKind.Array => "a list",
        JsonValueKind.String => $"the string '{Short(value.GetString()!)}'",
        JsonValueKind.Number => Short(value.GetRawText()),
        JsonValueKind.Null => "null",
        _ => value.GetRawText(),
    };

    private static string Short(string text) => text.Length <= 40 ? text : $"{text[..40]}…";

    private static string Join(string path, string name) =>
        path.Length == 0 ? name : name.Length == 0 ? path : name[0] == '[' ? path + name : $"{path}.{name}";

    private static string Name(string path) => path.Length == 0 ? "The body" : $"'{path}'";

    private static string? Param(string path) => path.Length == 0 ? null : path;
}
