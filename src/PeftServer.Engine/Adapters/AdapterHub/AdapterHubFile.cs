using System.Text.Json;
using System.Text.Json.Nodes;
using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;
using PeftServer.Engine.Weights.Pickle;

namespace PeftServer.Engine.Adapters.AdapterHub;

/// <summary>
/// Folders as the library's <c>save_adapter</c> writes them: <c>adapter_config.json</c> beside <c>adapter.safetensors</c> or
/// <c>pytorch_adapter.bin</c>, and where a head trained along, <c>head_config.json</c> beside <c>model_head.safetensors</c> or
/// <c>pytorch_model_head.bin</c>. We write each tensor once: what the library repeats under a second name it also reads without.
/// </summary>
public static class AdapterHubFile
{
    public const string WeightsName = "adapter.safetensors";
    public const string OldWeightsName = "pytorch_adapter.bin";
    public const string HeadConfigName = "head_config.json";
    public const string HeadWeightsName = "model_head.safetensors";
    public const string OldHeadWeightsName = "pytorch_model_head.bin";

    /// <summary>The version of the library whose format is written.</summary>
    public const string FormatVersion = "adapters.1.3.0";

    private static readonly JsonSerializerOptions Indented = new(PeftJson.Indented);

    /// <summary>Whether the text of an <c>adapter_config.json</c> is the library's rather than PEFT's.</summary>
    internal static bool IsHubConfig(JsonObject fields) => !fields.ContainsKey("peft_type") && fields["config"] is not null && fields.ContainsKey("model_type");

    /// <summary>Writes the adapter, and its head where it has one.</summary>
    /// <param name="adapter">The adapter.</param>
    /// <param name="folder">Where to; it is made where it is missing.</param>
    /// <param name="baseModelName">Name of the base model, for people.</param>
    /// <param name="asPickle">As <c>.bin</c>, which is what the library reads unless it is told to <c>use_safetensors</c>.</param>
    public static void Save(HubAdapter adapter, string folder, string baseModelName, bool asPickle = false)
    {
        Directory.CreateDirectory(folder);
        adapter.Settle();
        Write(Path.Combine(folder, asPickle ? OldWeightsName : WeightsName), adapter.OwnState);
        File.WriteAllText(Path.Combine(folder, AdapterFile.ConfigName), ConfigText(adapter, baseModelName));
        SaveHead(adapter, folder, baseModelName, asPickle);
    }

    /// <summary>The text of <c>adapter_config.json</c>: fields sorted by name, the config complete.</summary>
    public static string ConfigText(HubAdapter adapter, string baseModelName) => Sorted(new JsonObject
    {
        ["config"] = HubNames.Written((JsonObject)((AdapterHubConfig)adapter.Config).Config!),
        ["hidden_size"] = adapter.Model.HiddenSize,
        ["model_class"] = adapter.Head is HubPredictionHead ? HubHeadConfig.FlexibleClass(adapter.Model.Config.ModelType) : ModelClass(adapter.Model),
        ["model_name"] = baseModelName,
        ["model_type"] = adapter.Model.Config.ModelType,
        ["name"] = adapter.Name,
        ["version"] = FormatVersion,
    }).ToJsonString(Indented);

    /// <summary>
    /// Loads the adapter in <paramref name="folder"/> onto <paramref name="model"/>. Throws <see cref="CheckpointException"/> for what is
    /// missing, left over, of the wrong shape or not finite, and for an adapter of another architecture.
    /// </summary>
    /// <param name="folder">The folder.</param>
    /// <param name="model">The model.</param>
    /// <param name="missing">Fields that its config lacks: a DiReFT that the library saved needs <c>subtract_projection: false</c>.</param>
    public static HubAdapter Load(string folder, PretrainedModel model, JsonObject? missing = null)
    {
        var config = ReadConfig(folder, model, missing);
        var headConfig = HubHeadConfig.Read(folder, model);
        var adapter = new HubAdapter(config, model, headConfig);
        using var scope = NewDisposeScope();
        try
        {
            using (var generator = new Generator(0))
            using (no_grad())
            {
                adapter.Head?.Initialize(generator, model.Device); // a head that is not in the folder stays the model's
            }

            Fill(adapter.OwnState, Tensors(folder, WeightsName, OldWeightsName), adapter, WeightsName);
            LoadHead(adapter, folder);

            adapter.Prepare();
            return adapter;
        }
        catch
        {
            adapter.Dispose();
            throw;
        }
    }

    /// <summary>Writes each adapter into a folder of its name, as the library's <c>save_all_adapters</c> does.</summary>
    public static void SaveAll(IEnumerable<HubAdapter> adapters, string folder, string baseModelName, bool asPickle = false)
    {
        foreach (var adapter in adapters)
        {
            Save(adapter, Path.Combine(folder, adapter.Name), baseModelName, asPickle);
        }
    }

    /// <summary>Loads every adapter below <paramref name="folder"/>, as <c>save_all_adapters</c> leaves them. Throws as <see cref="Load"/>.</summary>
    public static IReadOnlyList<HubAdapter> LoadAll(string folder, PretrainedModel model)
    {
        var loaded = new List<HubAdapter>();
        try
        {
            foreach (var inner in Directory.GetDirectories(folder).Where(inner => File.Exists(Path.Combine(inner, AdapterFile.ConfigName))).Order(StringComparer.Ordinal))
            {
                loaded.Add(Load(inner, model));
            }

            return loaded;
        }
        catch
        {
            loaded.ForEach(adapter => adapter.Dispose());
            throw;
        }
    }

    /// <summary>Writes the head of an adapter, where it has one.</summary>
    internal static void SaveHead(HubAdapter adapter, string folder, string baseModelName, bool asPickle)
    {
        if (adapter.Head is { } head)
        {
            Write(Path.Combine(folder, asPickle ? OldHeadWeightsName : HeadWeightsName), head.State);
            File.WriteAllText(Path.Combine(folder, HeadConfigName), HubHeadConfig.Text(adapter, baseModelName));
        }
    }

    /// <summary>Fills the head of an adapter from a folder, where both have one.</summary>
    internal static void LoadHead(HubAdapter adapter, string folder)
    {
        if (adapter.Head is not null && HubHeadConfig.Read(folder, adapter.Model) is not null)
        {
            Fill(adapter.HeadState, Tensors(folder, HeadWeightsName, OldHeadWeightsName), adapter, HeadWeightsName);
        }
    }

    /// <summary>The settings in a folder of the library, completed and brought up to the format of today.</summary>
    internal static AdapterHubConfig ReadConfig(string folder, PretrainedModel model, JsonObject? missing = null)
    {
        var fields = ReadFields(folder);
        var (type, hidden) = ((string?)fields["model_type"], (int?)fields["hidden_size"]);
        if (type != model.Config.ModelType)
        {
            throw new CheckpointException($"{AdapterFile.ConfigName}: model_type is '{type}', but this model is {model.Config.ModelType}. An adapter fits its own architecture only.");
        }

        return hidden is { } width && width != model.HiddenSize
            ? throw new CheckpointException($"{AdapterFile.ConfigName}: hidden_size is {width}, but this model's is {model.HiddenSize}.")
            : ReadConfig(fields, missing);
    }

    internal static AdapterHubConfig ReadConfig(JsonObject fields, JsonObject? missing = null)
    {
        try
        {
            var given = HubNames.Modern(fields["config"], (string?)fields["version"]);
            foreach (var (name, value) in missing ?? [])
            {
                (given as JsonObject)?.TryAdd(name, value?.DeepClone());
            }

            DropNeutral(given);
            var config = HubNames.Complete(given);
            HubMethod.Read(config);
            return new AdapterHubConfig { Config = config, Name = (string?)fields["name"] ?? throw new AdapterException("name", "is missing.") };
        }
        catch (AdapterException e)
        {
            throw new CheckpointException($"{AdapterFile.ConfigName}: config.{e.Message}", e);
        }
    }

    internal static string ModelClass(PretrainedModel model) => model.Config.Architectures is [var name, ..] ? name : model.GetType().Name;

    internal static JsonObject Sorted(JsonObject fields) => new(fields.OrderBy(field => field.Key, StringComparer.Ordinal)
        .Select(field => KeyValuePair.Create(field.Key, field.Value is JsonObject inner ? Sorted(inner) : field.Value is JsonArray list ? Sorted(list) : field.Value?.DeepClone())));

    /// <summary>Writes weights in the form that the file's name says.</summary>
    internal static void Write(string path, IEnumerable<(string Key, Weight Weight)> state)
    {
        var tensors = state.ToDictionary(entry => entry.Key, entry => entry.Weight.Value);
        if (path.EndsWith(".bin", StringComparison.Ordinal))
        {
            StateDictWriter.Write(path, tensors);
        }
        else
        {
            SafetensorsWriter.Write(path, tensors, new Dictionary<string, string>());
        }
    }

    /// <summary>The tensors of a file in either form; safetensors first.</summary>
    internal static IReadOnlyDictionary<string, Tensor> Tensors(string folder, string name, string oldName)
    {
        var path = Path.Combine(folder, name);
        if (File.Exists(path))
        {
            using var file = SafetensorsFile.Open(path);
            return file.Header.Entries.Keys.ToDictionary(key => key, file.Tensor);
        }

        var old = Path.Combine(folder, oldName);
        if (!File.Exists(old))
        {
            throw new CheckpointException($"There is neither {name} nor {oldName} in {folder}.");
        }

        using var pickle = PickleCheckpoint.OpenFile(old);
        return pickle.Names.ToDictionary(key => key, pickle.Tensor);
    }

    /// <summary>Gives every weight its tensor: every one placed, every place filled, shapes equal, values finite.</summary>
    internal static void Fill(IEnumerable<(string Key, Weight Weight)> state, IReadOnlyDictionary<string, Tensor> tensors, HubAdapter adapter, string file)
    {
        var stored = tensors.Where(entry => !HubKeys.IsRepeated(entry.Key, tensors)).ToDictionary(entry => HubKeys.Canonical(entry.Key, adapter), entry => entry.Value);
        var wanted = state.ToDictionary(entry => HubKeys.Canonical(entry.Key, adapter), entry => entry.Weight);
        var missing = wanted.Keys.Except(stored.Keys).ToList();
        var unexpected = stored.Keys.Except(wanted.Keys).ToList();
        if (missing.Count > 0 || unexpected.Count > 0)
        {
            throw new CheckpointException(
                $"{file} does not fit {AdapterFile.ConfigName} on this model:{AdapterFile.Listed(" missing", missing)}{AdapterFile.Listed(" unexpected", unexpected)}");
        }

        foreach (var (key, weight) in wanted)
        {
            using var scope = NewDisposeScope();
            if (!stored[key].isfinite().all().item<bool>())
            {
                throw new CheckpointException($"{file}: '{key}' holds values that are not finite.");
            }

            weight.Set(stored[key].to(ScalarType.Float32, adapter.Model.Device, copy: true).MoveToOuterDisposeScope());
        }
    }

    /// <summary>Fields of a newer version pass where they say nothing; all others are known, or an error.</summary>
    private static void DropNeutral(JsonNode? config)
    {
        if (config is not JsonObject fields)
        {
            return;
        }

        foreach (var part in fields["configs"] as JsonArray ?? [])
        {
            DropNeutral(part);
        }

        var known = HubNames.Fields(fields);
        foreach (var name in fields.Select(field => field.Key).Where(name => !known.Contains(name) && AdapterFile.IsNeutral(fields[name])).ToList())
        {
            fields.Remove(name);
        }
    }

    private static JsonArray Sorted(JsonArray list) => new([.. list.Select(item => item is JsonObject inner ? Sorted(inner) : item?.DeepClone())]);

    private static JsonObject ReadFields(string folder)
    {
        try
        {
            return JsonNode.Parse(File.ReadAllText(Path.Combine(folder, AdapterFile.ConfigName))) as JsonObject ?? throw new CheckpointException($"{AdapterFile.ConfigName} is no object.");
        }
        catch (JsonException e)
        {
            throw new CheckpointException($"{AdapterFile.ConfigName} in {folder} cannot be read: {e.Message}", e);
        }
    }
}
