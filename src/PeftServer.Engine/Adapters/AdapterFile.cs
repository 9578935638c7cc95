using System.Text.Json;
using System.Text.Json.Nodes;
using PeftServer.Engine.Adapters.AdapterHub;
using PeftServer.Engine.Models;
using PeftServer.Engine.Weights;

namespace PeftServer.Engine.Adapters;

/// <summary>
/// Adapters in folders as PEFT's <c>save_pretrained</c> writes them: <c>adapter_config.json</c> beside
/// <c>adapter_model.safetensors</c>; those of the <c>adapters</c> library are <see cref="AdapterHubFile"/>'s.
/// </summary>
public static class AdapterFile
{
    public const string ConfigName = "adapter_config.json";
    public const string WeightsName = "adapter_model.safetensors";

    /// <summary>An adapter's header is small: what is larger is not one.</summary>
    private const long MaxHeaderBytes = 16_000_000;

    /// <summary>Writes the adapter to <paramref name="folder"/>, which is made where it is missing.</summary>
    public static void Save(Adapter adapter, string folder, string baseModelName)
    {
        if (adapter is HubAdapter hub)
        {
            AdapterHubFile.Save(hub, folder, baseModelName);
            return;
        }

        Directory.CreateDirectory(folder);
        adapter.Settle();
        using var scope = NewDisposeScope();
        SafetensorsWriter.Write(Path.Combine(folder, WeightsName), adapter.SavedState.ToDictionary(entry => entry.Key, entry => entry.Value));
        File.WriteAllText(Path.Combine(folder, ConfigName), ConfigText(adapter.SavedConfig, baseModelName));
        adapter.SaveBeside(folder, baseModelName);
    }

    /// <summary>
    /// Bytes of the weights' file, whether the adapter has tensors or shapes alone.
    /// </summary>
    public static long SizeOf(Adapter adapter) => SafetensorsWriter.SizeOf(adapter.FileState.Select(entry => (entry.Key, entry.Weight.Shape, entry.Weight.ElementSize)));

    /// <summary>The text of <c>adapter_config.json</c>: every field that PEFT has, sorted by name, as PEFT writes it.</summary>
    public static string ConfigText(AdapterConfig config, string baseModelName)
    {
        var written = config with
        {
            BaseModelNameOrPath = baseModelName,
            InferenceMode = true,
            PeftVersion = AdapterConfig.FormatVersion,
        };
        var fields = JsonSerializer.SerializeToNode(written, PeftJson.Options)!.AsObject();
        foreach (var name in JobOnlyAttribute.FieldsOf(config.GetType()))
        {
            fields.Remove(name);
        }

        return new JsonObject(fields.OrderBy(field => field.Key, StringComparer.Ordinal).Select(field => KeyValuePair.Create(field.Key, field.Value?.DeepClone())))
            .ToJsonString(PeftJson.Indented);
    }

    /// <summary>
    /// Reads the settings in <paramref name="folder"/>. A field this server does not know passes when it is null, false or empty;
    /// otherwise it would change the maths and is a <see cref="CheckpointException"/>.
    /// </summary>
    public static AdapterConfig ReadConfig(string folder)
    {
        var path = Path.Combine(Own(folder), ConfigName);
        if (!File.Exists(path))
        {
            throw new CheckpointException($"There is no {ConfigName} in {folder}.");
        }

        var config = ParseConfig(File.ReadAllText(path));
        return config.Experts.Count == 0 ? config : config.WithExperts(folder);
    }

    /// <summary>Reads the settings in the text of a file; what <see cref="ReadConfig"/> says of them.</summary>
    public static AdapterConfig ParseConfig(string text)
    {
        try
        {
            var fields = JsonNode.Parse(text)?.AsObject() ?? throw new CheckpointException($"{ConfigName} is null.");
            if (AdapterHubFile.IsHubConfig(fields))
            {
                return AdapterHubFile.ReadConfig(fields);
            }

            var method = (string?)fields["peft_type"] ?? throw new CheckpointException($"{ConfigName}: peft_type is missing.");
            if (!AdapterConfig.Types.TryGetValue(method, out var type))
            {
                throw new CheckpointException($"{ConfigName}: peft_type '{method}' is not supported. Supported: {string.Join(", ", AdapterConfig.Types.Keys)}.");
            }

            DropNeutral(fields, type);
            var config = fields.Deserialize<AdapterConfig>(PeftJson.Options)!;
            if (config.Faults() is [var fault, ..])
            {
                throw new CheckpointException($"{ConfigName}: {fault.ErrorMessage}");
            }

            return config;
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException)
        {
            throw new CheckpointException($"{ConfigName} cannot be read: {e.Message}", e);
        }
    }

    /// <summary>
    /// Loads the adapter in <paramref name="folder"/> onto <paramref name="model"/>, on its device and in float32. Throws
    /// <see cref="CheckpointException"/> naming tensors that are missing, unexpected, of the wrong shape or not finite, and
    /// <see cref="AdapterException"/> when it does not fit the model. <paramref name="initialFolder"/> holds the adapter as its training
    /// began, where its start was drawn from data and taken out of the base (CorDA, LoRA-GA).
    /// </summary>
    public static Adapter Load(string folder, PretrainedModel model, string? initialFolder = null)
    {
        var config = ReadConfig(folder);
        if (config is AdapterHubConfig)
        {
            return AdapterHubFile.Load(folder, model);
        }

        var adapter = config.CreateAdapter(model);
        try
        {
            Fill(adapter, folder, initialFolder);
            return adapter;
        }
        catch
        {
            adapter.Dispose();
            throw;
        }
    }

    /// <summary>Loads the tensors in <paramref name="folder"/> into an adapter of its settings; what <see cref="Load"/> throws for them.</summary>
    internal static void Fill(Adapter adapter, string folder, string? initialFolder = null)
    {
        using var file = SafetensorsFile.Open(Path.Combine(Own(folder), WeightsName), MaxHeaderBytes);
        Check(adapter, file.Header);
        foreach (var (key, weight) in adapter.FileState)
        {
            using var scope = NewDisposeScope();
            var stored = file.Tensor(key);
            if (stored.is_floating_point() && !stored.isfinite().all().item<bool>())
            {
                throw new CheckpointException($"{WeightsName}: '{key}' holds values that are not finite.");
            }

            weight.Set(Owned(stored, adapter.Model.Device));
        }

        ReadStart(adapter, initialFolder);
        foreach (var copy in adapter.Parts.Select(entry => entry.Part).OfType<BaseLayerCopy>())
        {
            copy.Share();
        }

        adapter.Prepare();
    }

    /// <summary>PEFT saves Arrow as its router's folder beside those of the adapters it chooses between; here the router is the folder that holds them.</summary>
    private static string Own(string folder) =>
        Path.Combine(folder, "arrow_router") is var router && !File.Exists(Path.Combine(folder, ConfigName)) && File.Exists(Path.Combine(router, ConfigName)) ? router : folder;

    /// <summary>Gives the parts that took their start out of the base what that was.</summary>
    private static void ReadStart(Adapter adapter, string? folder)
    {
        var starts = adapter.Parts.SelectMany(entry => entry.Part.Start.Select(start => (adapter.KeyOf(entry.Site, start.Name), start.Weight))).ToList();
        if (starts.Count == 0)
        {
            return;
        }

        if (folder is null)
        {
            throw new AdapterException("init_lora_weights",
                "This adapter was trained on a base that its start, made from data or drawn, was taken out of. Its files do not say what that was: "
                + "convert it to a plain LoRA with PEFT's path_initial_model_for_weight_conversion.");
        }

        using var file = SafetensorsFile.Open(Path.Combine(folder, WeightsName), MaxHeaderBytes);
        foreach (var (key, weight) in starts)
        {
            using var scope = NewDisposeScope();
            weight.Set(Owned(file.Tensor(key), adapter.Model.Device));
        }
    }

    private static Tensor Owned(Tensor stored, Device device) =>
        stored.to(stored.is_floating_point() ? ScalarType.Float32 : stored.dtype, device, copy: true).MoveToOuterDisposeScope();

    /// <summary>Holds a file's header against what the adapter has: every tensor placed, every place filled, shapes equal.</summary>
    public static void Check(Adapter adapter, SafetensorsHeader header)
    {
        var wanted = adapter.FileState.ToDictionary(entry => entry.Key, entry => entry.Weight);
        var missing = wanted.Keys.Where(key => !header.Entries.ContainsKey(key)).ToList();
        var unexpected = header.Entries.Keys.Where(key => !wanted.ContainsKey(key) && !IsLeftover(key, wanted)).ToList();
        if (missing.Count > 0 || unexpected.Count > 0)
        {
            throw new CheckpointException(
                $"{WeightsName} does not fit {ConfigName} on this model:{Listed(" missing", missing)}{Listed(" unexpected", unexpected)}");
        }

        foreach (var (key, entry) in header.Entries.Where(entry => wanted.ContainsKey(entry.Key)))
        {
            if (!wanted[key].IsNominal && !entry.Shape.SequenceEqual(wanted[key].Shape))
            {
                throw new CheckpointException(
                    $"{WeightsName}: '{key}' has the shape [{string.Join(", ", entry.Shape)}]; this model needs [{string.Join(", ", wanted[key].Shape)}].");
            }
        }
    }

    private static readonly string[] Leftovers = [".modules_to_save.bias", ".original_module.bias"];

    /// <summary>With bias "all" PEFT saves a head's bias twice more, under the names of its two live copies, and reads neither.</summary>
    private static bool IsLeftover(string key, Dictionary<string, Weight> wanted) =>
        Leftovers.Any(end => key.EndsWith(end, StringComparison.Ordinal) && wanted.ContainsKey(key[..^end.Length] + ".bias"));

    internal static string Listed(string what, List<string> names) =>
        names.Count == 0 ? "" : $"{what}: {string.Join(", ", names.Take(5))}{(names.Count > 5 ? $" and {names.Count - 5} more" : "")}.";

    private static void DropNeutral(JsonObject fields, Type type)
    {
        var known = JsonSerializer.SerializeToNode(Activator.CreateInstance(type), typeof(AdapterConfig), PeftJson.Options)!.AsObject();
        foreach (var name in fields.Select(field => field.Key).Where(name => !known.ContainsKey(name)).ToList())
        {
            if (!IsNeutral(fields[name]))
            {
                throw new CheckpointException($"{ConfigName}: {name} = {fields[name]!.ToJsonString()} is not supported for {(string?)fields["peft_type"]}.");
            }

            fields.Remove(name);
        }
    }

    internal static bool IsNeutral(JsonNode? value) => value switch
    {
        null => true,
        JsonArray list => list.Count == 0,
        JsonObject map => map.Count == 0,
        JsonValue one => one.TryGetValue<bool>(out var flag) && !flag,
        _ => false,
    };
}
