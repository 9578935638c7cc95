using System.Globalization;
using System.Text.Json;
using System.Text.Json.Nodes;
using PeftServer.Engine.Weights;
using PeftServer.Engine.Weights.Gguf;

namespace PeftServer.Engine.Models;

/// <summary>
/// A model's <c>config.json</c>, read field by field under its own names. A field that is missing without a default, or that says
/// something this architecture does not compute, is a <see cref="CheckpointException"/> that names it.
/// </summary>
public sealed class PretrainedConfig
{
    private readonly JsonObject _fields;
    private readonly string _path;
    private readonly HashSet<string> _read = [];
    private readonly Dictionary<string, PretrainedConfig> _sections = [];

    private PretrainedConfig(JsonObject fields, string path = "") => (_fields, _path) = (fields, path);

    /// <summary>Name of the architecture: <c>llama</c>, <c>qwen3</c>, …</summary>
    public string ModelType => Text("model_type");

    /// <summary>Names of the classes in transformers that the checkpoint was saved from.</summary>
    public IReadOnlyList<string> Architectures => Field("architectures") is JsonArray list ? [.. list.Select(name => (string)name!)] : [];

    public int VocabSize => Int("vocab_size");

    /// <summary>Type of the saved weights; <c>dtype</c> and the older <c>torch_dtype</c> say the same.</summary>
    public string? Dtype => Text("dtype", null!) ?? Text("torch_dtype", null!);

    /// <summary>Reads <c>config.json</c> of <paramref name="folder"/>, or what the metadata of a GGUF file says in its stead.</summary>
    public static PretrainedConfig Read(string folder)
    {
        if (GgufFile.Find(folder) is { } gguf)
        {
            using var file = GgufFile.Open(gguf);
            return Parse(GgufConfig.Read(file).Json);
        }

        var path = System.IO.Path.Combine(folder, "config.json");
        try
        {
            return Parse(File.ReadAllText(path));
        }
        catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new CheckpointException($"There is no config.json in {folder}. A model folder is what save_pretrained writes.", e);
        }
    }

    /// <summary>Reads a config from its text.</summary>
    public static PretrainedConfig Parse(string json)
    {
        try
        {
            return new PretrainedConfig(JsonNode.Parse(json) as JsonObject ?? throw new CheckpointException("config.json is no JSON object."));
        }
        catch (Exception e) when (e is JsonException or ArgumentException)
        {
            throw new CheckpointException($"config.json is no valid JSON: {e.Message}", e);
        }
    }

    /// <summary>Whether the field is there and not null.</summary>
    public bool Has(string name) => Field(name) is not null;

    public int Int(string name) => Value<int>(name) ?? throw Missing(name);

    public int Int(string name, int otherwise) => Value<int>(name) ?? otherwise;

    public double Number(string name, double otherwise) => Value<double>(name) ?? otherwise;

    public bool Flag(string name, bool otherwise) => Value<bool>(name) ?? otherwise;

    public string Text(string name) => Text(name, null!) ?? throw Missing(name);

    public string Text(string name, string otherwise) => Field(name) switch
    {
        null => otherwise,
        JsonValue value when value.TryGetValue<string>(out var text) => text,
        var other => throw Wrong(name, other, "a string"),
    };

    /// <summary>The object in field <paramref name="name"/>, to be read the same way; null where it is absent.</summary>
    public PretrainedConfig? Section(string name) => Field(name) switch
    {
        null => null,
        JsonObject section => _sections.TryGetValue(name, out var known) ? known : _sections[name] = new PretrainedConfig(section, $"{_path}{name}."),
        var other => throw Wrong(name, other, "an object"),
    };

    /// <summary>All fields.</summary>
    internal IReadOnlyList<KeyValuePair<string, JsonNode?>> Entries => [.. _fields];

    /// <summary>Texts in a list; empty where the field is absent.</summary>
    public IReadOnlyList<string> Texts(string name) => Field(name) switch
    {
        null => [],
        JsonArray list when list.All(item => item is JsonValue value && value.TryGetValue<string>(out _)) => [.. list.Select(item => (string)item!)],
        var other => throw Wrong(name, other, "a list of strings"),
    };

    /// <summary>Texts in a list, or in one string with a character between them.</summary>
    public IReadOnlyList<string> TextsOrParts(string name, char between) =>
        Field(name) is JsonValue ? Text(name).Split(between, StringSplitOptions.RemoveEmptyEntries | StringSplitOptions.TrimEntries) : Texts(name);

    /// <summary>The same with other classes: their names by their number, as <c>id2label</c> has them.</summary>
    public PretrainedConfig WithLabels(IReadOnlyList<string> labels)
    {
        var fields = _fields.DeepClone().AsObject();
        fields["id2label"] = new JsonObject(labels.Select((label, id) => KeyValuePair.Create(id.ToString(CultureInfo.InvariantCulture), (JsonNode?)label)));
        return new PretrainedConfig(fields);
    }

    /// <summary>Classes of a classification head: <c>id2label</c>, else <c>num_labels</c>, else two.</summary>
    public int LabelCount => Field("id2label") is JsonObject { Count: > 0 } labels ? labels.Count : Int("num_labels", 2);

    /// <summary>Names of the classes by their number; those without a name are called as transformers does.</summary>
    public IReadOnlyList<string> Labels =>
    [
        .. Enumerable.Range(0, LabelCount).Select(number => Field("id2label") is JsonObject names && names[number.ToString(CultureInfo.InvariantCulture)] is JsonValue name
            ? name.ToString()
            : string.Create(CultureInfo.InvariantCulture, $"LABEL_{number}")),
    ];

    /// <summary>The numbers in a field that holds a number or a list of them; empty where it is absent.</summary>
    public IReadOnlyList<int> Ints(string name)
    {
        try
        {
            return Field(name) switch
            {
                null => [],
                JsonArray list => [.. list.Select(item => (int)item!)],
                var one => [(int)one],
            };
        }
        catch (Exception e) when (e is InvalidOperationException or FormatException or OverflowException)
        {
            throw Wrong(name, Field(name)!, "a list of integers");
        }
    }

    /// <summary>The numbers in a list; empty where the field is absent.</summary>
    public IReadOnlyList<double> Numbers(string name) => Field(name) switch
    {
        null => [],
        JsonArray list when list.All(item => item is JsonValue value && value.TryGetValue<double>(out _)) => [.. list.Select(item => (double)item!)],
        var other => throw Wrong(name, other, "a list of numbers"),
    };

    /// <summary>Throws when the field says anything but <paramref name="only"/>: another value would change the maths.</summary>
    public void Require(string name, string only, string otherwise)
    {
        if (Text(name, otherwise) is var value && value != only)
        {
            throw new CheckpointException($"config.json: {name} is '{value}', but only '{only}' is supported for {ModelType}.");
        }
    }

    /// <summary>Throws when a size is none, before anything of that size is made.</summary>
    internal void RefuseSizes()
    {
        foreach (var (name, value) in _fields)
        {
            var limit = name switch
            {
                "num_hidden_layers" or "n_layer" or "n_layers" or "num_layers" or "num_decoder_layers" or "encoder_layers" or "decoder_layers" => 10_000,
                "num_attention_heads" or "num_key_value_heads" or "n_head" or "n_heads" or "num_heads" or "encoder_attention_heads" or "decoder_attention_heads" or "num_kv_heads" => 65_536,
                "hidden_size" or "d_model" or "dim" or "n_embd" or "n_embed" or "head_dim" or "d_kv" or "embedding_size" or "attention_head_size" => 1 << 20,
                "intermediate_size" or "d_ff" or "hidden_dim" or "ffn_dim" or "encoder_ffn_dim" or "decoder_ffn_dim" or "moe_intermediate_size" => 1 << 24,
                "vocab_size" or "max_position_embeddings" or "n_positions" or "seq_length" => 1 << 28,
                _ => 0,
            };
            if (limit > 0 && value is JsonValue number && (Whole(number) is not { } size || size < 1 || size > limit))
            {
                throw new CheckpointException($"config.json: {name} is {Short(value)}, but must be a whole number from 1 to {limit}.");
            }
        }

        foreach (var name in (string[])["num_local_experts", "num_experts", "relative_attention_num_buckets", "position_buckets", "type_vocab_size", "max_relative_positions"])
        {
            if (_fields[name] is JsonValue number && (Whole(number) is not { } size || size < -1 || size > 1 << 16))
            {
                throw new CheckpointException($"config.json: {name} is {Short(number)}, but must be a whole number up to {1 << 16}.");
            }
        }
    }

    /// <summary>
    /// The config of a model that has the layers <paramref name="order"/> of this one's <paramref name="count"/>: in what says how many there
    /// are, and in lists with an entry for each.
    /// </summary>
    internal PretrainedConfig WithLayers(IReadOnlyList<int> order, int count)
    {
        string[] counts = ["num_hidden_layers", "n_layer", "num_layers"];
        var fields = (JsonObject)_fields.DeepClone();
        foreach (var (name, value) in _fields)
        {
            if (counts.Contains(name))
            {
                fields[name] = order.Count;
            }
            else if (value is JsonArray list && list.Count == count && (name.Contains("layer", StringComparison.Ordinal) || name.Contains("rope", StringComparison.Ordinal)))
            {
                fields[name] = new JsonArray([.. order.Select(layer => list[layer]?.DeepClone())]);
            }
        }

        return new PretrainedConfig(fields);
    }

    /// <summary>This config with other numbers. Throws for a field that it has not got.</summary>
    internal PretrainedConfig With(IEnumerable<(string Name, int Value)> numbers)
    {
        var fields = (JsonObject)_fields.DeepClone();
        foreach (var (name, value) in numbers)
        {
            fields[name] = fields.ContainsKey(name) ? value : throw Missing(name);
        }

        return new PretrainedConfig(fields);
    }

    /// <summary>
    /// Throws when a field speaks of the computation and no part of the model has read it: the model would compute something else than
    /// the one that was trained.
    /// </summary>
    internal void RefuseUnread()
    {
        foreach (var (name, value) in _fields)
        {
            if (_sections.TryGetValue(name, out var section))
            {
                section.RefuseUnread();
            }
            else if (!_read.Contains(name) && !UnreadFields.MayIgnore(name, value, isNested: _path.Length > 0))
            {
                throw new CheckpointException($"config.json: {_path}{name} = {Short(value!)} is not supported; this model would be computed without it.");
            }
        }
    }

    internal CheckpointException Unsupported(string name, object value) =>
        new($"config.json: {name} = {value} is not supported for {ModelType}.");

    private T? Value<T>(string name)
        where T : struct
    {
        if (Field(name) is not { } node)
        {
            return null;
        }

        return node is JsonValue value && value.TryGetValue<T>(out var result) ? result : throw Wrong(name, node, $"a {typeof(T).Name}");
    }

    private static long? Whole(JsonValue value) =>
        long.TryParse(value.ToJsonString(), System.Globalization.NumberStyles.AllowLeadingSign, System.Globalization.CultureInfo.InvariantCulture, out var number) ? number : null;

    private JsonNode? Field(string name)
    {
        _read.Add(name);
        return _fields[name];
    }

    private CheckpointException Missing(string name) => new($"config.json: {_path}{name} is missing.");

    private CheckpointException Wrong(string name, JsonNode value, string wanted) => new($"config.json: {_path}{name} is {Short(value)}, but must be {wanted}.");

    private static string Short(JsonNode value)
    {
        var text = value.ToJsonString();
        return text.Length > 60 ? text[..60] + "…" : text;
    }
}
